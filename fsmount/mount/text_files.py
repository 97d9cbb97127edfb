"""The text of pictures as files of a mount: ``.fsmount/text/desk/2024-06-06T17:41:00.png.txt``.

The folders are those of the store. A picture whose text was read has a file with its words in
reading order, so ``grep -r`` finds them. The files cannot be changed. Whoever may read a picture
may read its text.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from contextlib import ExitStack

import trio

from fsmount import threads
from fsmount.errors import NoSuchInode, NoText
from fsmount.mount.attributes import (
    NAME_BYTES,
    SHARED_VALID_S,
    Attributes,
    Caller,
    DirEntry,
    failure,
)
from fsmount.mount.filesystem import ROOT, Filesystem
from fsmount.store.files import StoreFiles
from fsmount.store.index import Inode
from fsmount.store.retention.pictures import is_picture
from fsmount.text.database import path_of
from fsmount.text.words import Words, open_words
from fsmount.threads import Kind

FIRST = 1 << 53
"""The first number of inodes and handles. Those of a folder are even, those of a text odd."""
_SUFFIX = b".txt"
# Texts stay as they are for so long: one is asked for its size, and then for its content.
_FRESH_S = 1.0
_MOST_FRESH = 4096
# Entries of one reply; the kernel takes fewer at a time.
_AT_ONCE = 64


class TextFiles(Filesystem):
    """See the module. `upper` is the filesystem of the store. Belongs to the trio task."""

    def __init__(self, store: StoreFiles, upper: Filesystem) -> None:
        self._store = store
        self._upper = upper
        self._next = FIRST
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, list[tuple[bytes, int]]] = {}
        self._fresh: dict[int, tuple[float, bytes | None]] = {}
        # Held by the task whose thread uses the database.
        self._asking = trio.Lock()
        self._opened = ExitStack()
        self._words: Words | None = None
        self._stamp: tuple[int, int] | None = None

    async def root(self) -> Attributes:
        """The attributes of the folder ``text``."""
        return await self._folder(ROOT)

    # -- texts

    async def _texts(self, inos: Sequence[int]) -> dict[int, bytes | None]:
        """The texts of pictures, by inode number; None for one that was not read.

        Raises TextDamaged, FsmountError, OSError.
        """
        now = time.monotonic()
        wanted = [
            ino for ino in inos if now - self._fresh.get(ino, (-_FRESH_S, None))[0] >= _FRESH_S
        ]
        if wanted:
            if len(self._fresh) > _MOST_FRESH:
                self._fresh.clear()
            async with self._asking:
                found = await threads.call(Kind.ENTRY, self._read, wanted)
            self._fresh |= {ino: (now, text) for ino, text in found.items()}
        return {ino: self._fresh[ino][1] for ino in inos}

    def _read(self, inos: Sequence[int]) -> dict[int, bytes | None]:
        """As :meth:`_texts`. Runs in a thread, one at a time."""
        try:
            info = path_of(self._store.layout).stat()
            stamp = info.st_dev, info.st_ino
        except FileNotFoundError:
            return dict.fromkeys(inos)
        if self._words is None or stamp != self._stamp:
            self._opened.close()
            self._words = None
            try:
                self._words = self._opened.enter_context(open_words(self._store))
            except NoText:
                return dict.fromkeys(inos)
            self._stamp = stamp
        words = self._words
        return {ino: words.text(ino).encode() if words.is_read(ino) else None for ino in inos}

    # -- inodes

    def _place(self, ino: int) -> tuple[int, bool]:
        """The number in the store, and whether it is a text."""
        number, is_text = divmod(ino - FIRST, 2)
        return number, bool(is_text)

    async def _folder(self, number: int) -> Attributes:
        found = await self._upper.getattr(number)
        if not stat.S_ISDIR(found.mode):
            raise failure(errno.ENOENT)
        return found._replace(
            ino=FIRST + 2 * number, mode=found.mode & ~0o222, valid_s=SHARED_VALID_S
        )

    async def _text(self, number: int) -> Attributes:
        text = (await self._texts([number]))[number]
        if text is None:
            raise failure(errno.ENOENT)
        return self._shown(await self._upper.getattr(number), text)

    def _shown(self, picture: Attributes, text: bytes) -> Attributes:
        return picture._replace(
            ino=FIRST + 2 * picture.ino + 1,
            mode=stat.S_IFREG | (picture.mode & 0o444),
            nlink=1,
            size=len(text),
            blocks=-(-len(text) // 512),
            valid_s=SHARED_VALID_S,
        )

    async def lookup(self, folder: int, name: bytes) -> Attributes:
        """A folder of the store, or the text of a picture."""
        if len(name) > NAME_BYTES + len(_SUFFIX):
            raise failure(errno.ENAMETOOLONG)
        number, is_text = self._place(folder)
        if is_text:
            raise failure(errno.ENOTDIR)
        found = self._store.index.lookup(number, name)
        if found is not None and stat.S_ISDIR(found.mode):
            return await self._folder(found.ino)
        if name.endswith(_SUFFIX):
            name = name.removesuffix(_SUFFIX)
            found = self._store.index.lookup(number, name)
            if found is not None and is_picture(name, found):
                return await self._text(found.ino)
        raise failure(errno.ENOENT)

    def remember(self, ino: int) -> None:
        """No-op: an entry keeps its number."""

    async def forget(self, ino: int, count: int) -> None:
        """No-op, as `remember`."""

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows."""
        number, is_text = self._place(ino)
        try:
            return await self._text(number) if is_text else await self._folder(number)
        except NoSuchInode as error:
            raise failure(errno.ENOENT) from error

    async def readlink(self, ino: int) -> bytes:
        """Raises OSError EINVAL: there are no links."""
        raise failure(errno.EINVAL)

    async def statfs(self) -> os.statvfs_result:
        """As the upper filesystem."""
        return await self._upper.statfs()

    # -- open files

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """A handle on a text, which stays as it is now. Raises OSError EISDIR, EROFS."""
        number, is_text = self._place(ino)
        if not is_text:
            raise failure(errno.EISDIR)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise failure(errno.EROFS)
        text = (await self._texts([number]))[number]
        if text is None:
            raise failure(errno.ENOENT)
        self._next += 1
        self._files[self._next] = text
        return self._next

    def keeps_pages(self, fh: int) -> bool:
        """Never: another process may read more text."""
        return False

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """A part of a text."""
        if fh not in self._files:
            raise failure(errno.EBADF)
        return self._files[fh][offset : offset + length]

    async def flush(self, fh: int) -> None:
        """No-op."""

    async def fsync(self, fh: int) -> None:
        """No-op."""

    async def release(self, fh: int) -> None:
        """Close a handle."""
        self._files.pop(fh, None)

    # -- open folders

    async def opendir(self, ino: int) -> int:
        """A handle on a folder."""
        number, is_text = self._place(ino)
        if is_text:
            raise failure(errno.ENOTDIR)
        entries = [(b".", ino), (b"..", ino)]
        for name, inode in self._store.index.by_name(number):
            if shown := _entry(name, inode):
                entries.append(shown)
            await trio.lowlevel.checkpoint_if_cancelled()
        self._next += 1
        self._folders[self._next] = entries
        return self._next

    async def readdir(self, fh: int, after: int) -> list[DirEntry]:
        """Some entries after the cookie `after`: FIRST + the entry's place from 1."""
        entries = self._folders.get(fh)
        if entries is None:
            raise failure(errno.EBADF)
        place = max(0, after - FIRST)
        while place < len(entries):
            part = entries[place : place + _AT_ONCE]
            numbers = [self._place(ino) for _, ino in part]
            texts = await self._texts([number for number, is_text in numbers if is_text])
            found: list[DirEntry] = []
            for (name, _), (number, is_text) in zip(part, numbers, strict=True):
                place += 1
                try:
                    if not is_text:
                        found.append((FIRST + place, name, await self._folder(number)))
                    elif (text := texts[number]) is not None:
                        shown = self._shown(await self._upper.getattr(number), text)
                        found.append((FIRST + place, name, shown))
                except (NoSuchInode, OSError):
                    continue  # it was deleted after the folder was opened
            if found:
                return found
        return []

    async def fsyncdir(self, fh: int) -> None:
        """No-op."""

    async def releasedir(self, fh: int) -> None:
        """Close the handle of a folder."""
        self._folders.pop(fh, None)

    # -- extended attributes

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """Raises OSError ENODATA: there are none."""
        raise failure(errno.ENODATA)

    async def listxattr(self, ino: int) -> Sequence[bytes]:
        """None."""
        return ()


def _entry(name: bytes, inode: Inode) -> tuple[bytes, int] | None:
    """The name and number of an entry; None if it is neither a folder nor a picture."""
    if stat.S_ISDIR(inode.mode):
        return name, FIRST + 2 * inode.ino
    if is_picture(name, inode):
        return name + _SUFFIX, FIRST + 2 * inode.ino + 1
    return None
