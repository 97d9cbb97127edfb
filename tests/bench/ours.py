"""fsmount as a method: import, export, and opens through a mount."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.exporting import Exporter
from fsmount.store.transfer.importing import Importer
from tests.bench.methods import Opener
from tests.e2e.mounts import Mount, missing


def fsmount(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command of fsmount to its end. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", "fsmount", *arguments]
    return subprocess.run(command, check=True, capture_output=True)


class Fsmount:
    """A store after `import`. Both directions include the exactness check and the hashes."""

    name = "fsmount"
    gives = "files"

    def missing(self) -> str | None:
        return missing()

    def store(self, files: Sequence[Path], folder: Path) -> None:
        trio.run(_import, files[0].parent, folder / "store")

    def size(self, folder: Path) -> int:
        """Bytes as `stats` counts them, without the reserve of 1 MiB."""
        store = open_read_store(folder / "store")
        try:
            return int(store.stats()["stored_bytes"])
        finally:
            store.close()

    def read_all(self, folder: Path, out: Path) -> None:
        trio.run(_export, folder / "store", out)

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        """Open through a mount without a cache in memory, so that each open is the first."""
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            (place / "store").symlink_to(folder / "store")
            (place / "mnt").mkdir()
            mount = Mount(place, cache_bytes=0)
            mount.start()
            try:
                names = sorted(os.listdir(mount.path))
                yield lambda number: (mount.path / names[number]).read_bytes()
                mount.stop()
            finally:
                mount.clean()


class Repacked(Fsmount):
    """The same store after `repack`. The time of the repack is added to that of the import."""

    name = "fsmount, repacked"

    def missing(self) -> str | None:
        has = b"repack" in fsmount("--help").stdout
        return super().missing() if has else "this fsmount has no repack"

    def store(self, files: Sequence[Path], folder: Path) -> None:
        super().store(files, folder)
        fsmount("repack", folder / "store")


async def _import(source: Path, path: Path) -> None:
    config.make(path, Disk())
    opened = open_store(path)
    async with opened.running() as store:
        await Importer(store, lambda files, count: None).add(source, b"")
    opened.close()


async def _export(path: Path, out: Path) -> None:
    opened = open_store(path)
    async with opened.running() as store:
        await Exporter(store, out, lambda files, count: None, force=False).export(b"")
    opened.close()
