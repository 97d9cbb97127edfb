"""kill -9 of the daemon at random moments loses no file whose close or fsync returned.

FSMOUNT_KILLS sets the number of kills (default 6), FSMOUNT_SEED their moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fsmount.store.store import open_store
from tests.e2e.mounts import Mount, missing
from tests.support import corpus

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

KILLS = int(os.environ.get("FSMOUNT_KILLS", "6"))
SEED = int(os.environ.get("FSMOUNT_SEED", "1"))


class Writer(threading.Thread):
    """Copies files until the mount dies. Notes the files whose close or fsync has returned."""

    def __init__(self, files: list[Path], folder: Path) -> None:
        super().__init__()
        self._files = files
        self._folder = folder
        self.acknowledged: dict[str, Path] = {}
        self.touched: set[str] = set()

    def run(self) -> None:
        try:
            for number, file in enumerate(self._files):
                self._copy(file, self._folder / file.name, durable=number % 3 == 0)
        except OSError:
            return

    def _copy(self, source: Path, target: Path, *, durable: bool) -> None:
        self.touched.add(target.name)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.write(fd, source.read_bytes())
            if durable:
                os.fsync(fd)
                self.acknowledged[target.name] = source
        finally:
            os.close(fd)
        self.acknowledged[target.name] = source


def test_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    files = corpus.files("desk")
    source = files[0].parent
    mount = Mount(tmp_path)
    acknowledged: dict[str, Path] = {}
    try:
        for _ in range(KILLS):
            mount.start()
            (mount.path / "own").mkdir(exist_ok=True)
            for name, original in acknowledged.items():
                assert (mount.path / "own" / name).read_bytes() == original.read_bytes(), name
            _finished_files_are_whole(mount.path / "synced", source)
            command = ["rsync", "-a", f"{source}/", f"{mount.path}/synced/"]
            running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            writer = Writer(chance.sample(files, 20), mount.path / "own")
            writer.start()
            time.sleep(chance.uniform(0.05, 2.5))
            mount.crash()
            running.wait(30)
            writer.join(30)
            for name in writer.touched:
                acknowledged.pop(name, None)
            acknowledged |= writer.acknowledged
            mount.clear()
        mount.start()
        for name, original in acknowledged.items():
            assert (mount.path / "own" / name).read_bytes() == original.read_bytes(), name
        subprocess.run(["rsync", "-a", f"{source}/", f"{mount.path}/synced/"], check=True)
        mount.stop(drain=True)
        mount.start()
        assert _finished_files_are_whole(mount.path / "synced", source) == len(
            list(source.iterdir())
        )
        mount.stop()
    finally:
        mount.clean()
    _nothing_left_over(mount.store)


def _finished_files_are_whole(folder: Path, source: Path) -> int:
    """Check files under their final names; returns their number.

    rsync renames a file when it is complete, so such a file must equal its source.
    """
    count = 0
    for path in folder.glob("[!.]*") if folder.is_dir() else ():
        assert path.read_bytes() == (source / path.name).read_bytes(), path.name
        count += 1
    return count


def _nothing_left_over(path: Path) -> None:
    """Check that the crashes left no staged file and no orphan, and that all packs are known."""
    store = open_store(path)
    try:
        assert store.staging.tokens() == []
        assert store.index.orphans() == []
        known = {f"{number:08d}.zip" for number in store.index.packs()}
        there = {entry.name for entry in store.layout.packs.iterdir()} - set(store.layout.copies)
        assert {name for name in there if name.endswith(".zip")} == known
        assert {Path(name).stem for name in there} == {Path(name).stem for name in known}
    finally:
        store.close()
