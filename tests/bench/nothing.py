"""The smallest filesystem that pyfuse3 can serve: the cost of requests without a store.

    python -m tests.bench.nothing DIR --files 1000000 --folder 25000 --size 100000

The names are those of :mod:`tests.bench.synthetic`. Attributes are made up. Files have only zeros,
and the kernel keeps their pages after the first read. The program prints "ready" when it answers,
and ends when it is unmounted.
"""

from __future__ import annotations

import argparse
import errno
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import trio

from tests.bench.synthetic import FILES, FOLDER, names

TIMEOUT_S = 86_400.0
SIZE = 100_000
_FILE, _DIR = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class Nothing(pyfuse3.Operations):
    """Folders with inodes 2, 3, … in the root, each with the same names.

    All other facts are computed from the inode numbers.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, files: int, folder: int, size: int) -> None:
        super().__init__()
        self._size = size
        self._folders = [f"{start:08}".encode() for start in range(0, files, folder)]
        self._names = list(names(folder))
        self._places = {name: place for place, name in enumerate(self._names)}
        self._roots = {name: place for place, name in enumerate(self._folders)}

    def _entry(self, ino: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = ino
        entry.st_mode = _DIR if ino <= 1 + len(self._folders) else _FILE
        entry.st_nlink = 1
        entry.st_size = self._size
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = 1_700_000_000_000_000_000
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
        return entry

    def _listed(self, folder: int) -> tuple[list[bytes], int]:
        """The names of a folder, and the inode number of the first name."""
        if folder == pyfuse3.ROOT_INODE:
            return self._folders, 2
        return self._names, 2 + len(self._folders) + (folder - 2) * len(self._names)

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(inode)

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        places = self._roots if parent_inode == pyfuse3.ROOT_INODE else self._places
        if name not in places:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._entry(self._listed(parent_inode)[1] + places[name])

    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        listed, first = self._listed(fh)
        for place in range(start_id, len(listed)):
            entry = self._entry(first + place)
            if not pyfuse3.readdir_reply(token, listed[place], entry, place + 1):
                return

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return bytes(max(0, min(size, self._size - off)))

    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        return

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        return


@contextmanager
def mounted(folder: Path, files: int, per_folder: int, size: int = SIZE) -> Iterator[int]:
    """Mount this filesystem on `folder` in a process of its own; yields the process id."""
    sizes = ["--files", str(files), "--folder", str(per_folder), "--size", str(size)]
    command = [sys.executable, "-m", __name__, str(folder), *sizes]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process.pid
    finally:
        subprocess.run(["umount", folder], check=True)
        process.wait()


async def _serve() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        print("ready", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--folder", type=int, default=FOLDER)
    parser.add_argument("--size", type=int, default=SIZE)
    chosen = parser.parse_args()
    operations = Nothing(chosen.files, chosen.folder, chosen.size)
    pyfuse3.init(operations, str(chosen.mountpoint), {"fsname=nothing", "default_permissions"})
    try:
        trio.run(_serve)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
