"""Listings of texts: in steps, while names come and go."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fsmount.mount.attributes import Attributes
from fsmount.mount.filesystem import ROOT, Filesystem
from fsmount.mount.text_files import FIRST, TextFiles
from fsmount.store.index import Index
from tests.support.written_words import WrittenWords

COUNT = 300


class Upper:
    """Attributes of the files of a store."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def getattr(self, ino: int) -> Attributes:
        node = self._index.inode(ino)
        return Attributes(ino, node.mode, node.nlink, 0, 0, 0, node.size, 0, 0, 0, 0, 1.0)


@pytest.fixture(name="written")
def a_store_with_words(tmp_path: Path) -> Iterator[WrittenWords]:
    """A folder with many pictures, of which every second one was read, and a folder in it."""
    made = WrittenWords(tmp_path / "store")
    for minute in range(0, COUNT, 2):
        made.slot(range(minute, minute + 1), [(f"word{minute}", 0, 0)])
        made.picture(minute + 1)
    made.index.create(made.folder, b"inner", mode=stat.S_IFDIR | 0o755, uid=0, gid=0, now_ns=1)
    yield made
    made.close()


async def listed(files: TextFiles, fh: int, after: int = 0, most: int = 10**9) -> list[bytes]:
    """Names behind a cookie, asked for as the kernel does: it takes only some of each answer."""
    names: list[bytes] = []
    while len(names) < most:
        found = await files.readdir(fh, after)
        if not found:
            break
        taken = found[:7]
        for _, name, shown in taken:
            assert (await files.getattr(shown.ino)).ino == shown.ino
            names.append(name)
        after = taken[-1][0]
    return names


async def test_a_listing_has_each_text_once(written: WrittenWords) -> None:
    with written.opened() as store:
        files = TextFiles(store, cast(Filesystem, Upper(store.index)))
        fh = await files.opendir(FIRST + 2 * written.folder)
        wanted = [b"%06d.png.txt" % minute for minute in range(0, COUNT, 2)]
        assert await listed(files, fh) == [b".", b"..", *wanted, b"inner"]
        # A handle keeps no names.
        assert files._folder(fh) == written.folder
        dots = {name: shown.ino for _, name, shown in await files.readdir(fh, 0)}
        assert dots[b"."] == FIRST + 2 * written.folder
        assert dots[b".."] == FIRST + 2 * ROOT
        root = await files.opendir(FIRST + 2 * ROOT)
        assert await listed(files, root) == [b".", b"..", b"desk"]
        await files.releasedir(fh)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await files.readdir(fh, 0)


async def test_names_come_and_go_meanwhile(written: WrittenWords) -> None:
    with written.opened() as store:
        files = TextFiles(store, cast(Filesystem, Upper(store.index)))
        fh = await files.opendir(FIRST + 2 * written.folder)
        first = await files.readdir(fh, 0)
        found = await files.readdir(fh, first[-1][0])
        after, name, _ = found[3]
        # The last name that was taken, one before it, and one that comes.
        for gone in (name, found[0][1], b"000200.png.txt"):
            written.index.unlink(written.folder, gone.removesuffix(b".txt"), 5)
        written.slot(range(COUNT, COUNT + 1), [("late", 0, 0)])
        names = await listed(files, fh, after)
        at = int(name[:6])
        wanted = [b"%06d.png.txt" % n for n in range(at + 2, COUNT, 2) if n != 200]
        assert names == [*wanted, b"inner", b"%06d.png.txt" % COUNT]


async def test_a_folder_without_texts(written: WrittenWords) -> None:
    """Its names are gone through in steps, and none is shown."""
    made = written.index.create(ROOT, b"unread", mode=stat.S_IFDIR | 0o755, uid=0, gid=0, now_ns=1)
    for minute in range(200):
        written.picture(minute, made.ino)
    with written.opened() as store:
        files = TextFiles(store, cast(Filesystem, Upper(store.index)))
        fh = await files.opendir(FIRST + 2 * made.ino)
        assert await listed(files, fh) == [b".", b".."]
