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
from fsmount.mount.plain_answers import PlainAnswers
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
# Names of one query; the kernel takes fewer entries at a time.
_AT_ONCE = 64
# Cookies of "." and ".." come before those of the names.
_DOTS = 2


class TextFiles(PlainAnswers[bytes, int]):
    """See the module. `upper` is the filesystem of the store. Belongs to the trio task."""

    def __init__(self, store: StoreFiles, upper: Filesystem) -> None:
        super().__init__(FIRST)
        self._store = store
        self._upper = upper
        self._fresh: dict[int, tuple[float, bytes | None]] = {}
        # Held by the task whose thread uses the database.
        self._asking = trio.Lock()
        self._opened = ExitStack()
        self._words: Words | None = None
        self._stamp: tuple[int, int] | None = None

    async def root(self) -> Attributes:
        """The attributes of the folder ``text``."""
        return await self._attributes(ROOT)

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

    async def _attributes(self, number: int) -> Attributes:
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
            return await self._attributes(found.ino)
        if name.endswith(_SUFFIX):
            name = name.removesuffix(_SUFFIX)
            found = self._store.index.lookup(number, name)
            if found is not None and is_picture(name, found):
                return await self._text(found.ino)
        raise failure(errno.ENOENT)

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows."""
        number, is_text = self._place(ino)
        try:
            return await self._text(number) if is_text else await self._attributes(number)
        except NoSuchInode as error:
            raise failure(errno.ENOENT) from error

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
        return self._keep_file(text)

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """A part of a text."""
        return self._file(fh)[offset : offset + length]

    # -- open folders

    async def opendir(self, ino: int) -> int:
        """A handle on a folder."""
        number, is_text = self._place(ino)
        if is_text:
            raise failure(errno.ENOTDIR)
        return self._keep_folder(number)

    async def readdir(self, fh: int, after: int) -> list[DirEntry]:
        """Some entries after the cookie `after`: FIRST + _DOTS + the one of the store's name."""
        folder = self._folder(fh)
        found = await self._dots(folder, after) if after < FIRST + _DOTS else []
        at = max(0, after - FIRST - _DOTS)
        while not found:
            children = self._store.index.children(folder, at, _AT_ONCE)
            if not children:
                break
            at = children[-1][0]
            found = await self._entries(children)
        return found

    async def _dots(self, folder: int, after: int) -> list[DirEntry]:
        place = self._store.index.folder_of(folder)
        above = place[0] if place else folder
        rows = ((FIRST + 1, b".", folder), (FIRST + _DOTS, b"..", above))
        return [
            (cookie, name, await self._attributes(number))
            for cookie, name, number in rows
            if cookie > after
        ]

    async def _entries(self, children: Sequence[tuple[int, bytes, Inode]]) -> list[DirEntry]:
        """The entries that some names of the store stand for."""
        pictures = [node.ino for _, name, node in children if is_picture(name, node)]
        texts = await self._texts(pictures)
        found: list[DirEntry] = []
        for cookie, name, node in children:
            place = FIRST + _DOTS + cookie
            try:
                if stat.S_ISDIR(node.mode):
                    found.append((place, name, await self._attributes(node.ino)))
                elif (text := texts.get(node.ino)) is not None and is_picture(name, node):
                    shown = self._shown(await self._upper.getattr(node.ino), text)
                    found.append((place, name + _SUFFIX, shown))
            except (NoSuchInode, OSError):
                continue  # it was deleted meanwhile
        return found
