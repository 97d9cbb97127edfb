"""A store for the tests of the mount: index, staging and disk are real, encoding is a copy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.config import make
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.staging import Staging
from fsmount.store.recovery.startup import recover
from fsmount.threads import Kind


@dataclass
class FakeBody:
    """The bytes of an object."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def pread(self, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + length]


class FakeStore:
    """The interface of a store that the mount uses.

    Objects are files in ``raw/``. `renders` lists the objects in the order of their reads.
    """

    def __init__(self, path: Path, *, read_only: bool = False, disk: Disk | None = None) -> None:
        self.path = path
        self.read_only = read_only
        self.supply = None
        self.pushed: list[object] = []
        self.name = str(self.path)
        self.disk = disk or Disk()
        self.layout = Layout(path)
        if not path.exists():
            make(path, self.disk)
        self.index = Index(self.layout.index, self.disk, read_only=read_only)
        self.staging = Staging(self.layout.staging, self.disk)
        if not read_only:
            recover(self.layout, self.index, self.staging, self.disk).close()
        self.held: set[int] = set()
        self.queued: list[int] = []
        self.renders: list[int] = []
        self.prefetched: list[int] = []
        self.forced = 0
        self.damaged = False
        self._work = trio.Event()

    def close(self) -> None:
        self.index.close()

    async def body(self, object_id: int) -> FakeBody:
        await trio.lowlevel.checkpoint()
        if self.damaged:
            raise Damaged(f"object {object_id}", reason="told so")
        self.renders.append(object_id)
        return FakeBody(self.layout.kept(object_id).read_bytes())

    def hold(self, ino: int) -> None:
        assert ino not in self.held
        self.held.add(ino)

    def unhold(self, ino: int) -> None:
        self.held.remove(ino)

    def queue(self, ino: int) -> None:
        self.queued.append(ino)
        self._work.set()

    async def need_space(self, size: int = 0) -> None:
        pass

    async def before_deleting(self) -> None:
        pass

    def discard(self, token: int) -> None:
        self.staging.remove(token)

    def pending(self) -> int:
        return int(self.index.totals()["staged"])

    async def durable(self) -> None:
        self.forced += 1
        await threads.call(Kind.FORCE, self.index.force)

    async def prefetch(self, ino: int) -> None:
        self.prefetched.append(ino)

    async def run(self) -> None:
        self.queued += [node.ino for node in self.index.staged_inodes()]
        while True:
            self.encode_queued()
            self._work = trio.Event()
            await self._work.wait()

    def encode_queued(self) -> None:
        """Encode the queued files that are not held."""
        todo, self.queued = self.queued, []
        for ino in dict.fromkeys(todo):
            row = self.index.inode(ino)
            if ino not in self.held and row.nlink and row.staged is not None:
                self.encode(ino)

    def encode(self, ino: int) -> int:
        """Turn a staged inode into an object. Returns the id of the object."""
        token = self.index.inode(ino).staged
        assert token is not None
        data = self.staging.path(token).read_bytes()
        number = self.index.next_object_id()
        self.layout.kept(number).write_bytes(data)
        digest = hashlib.sha256(data).digest()
        self.index.add_object(Object(number, "raw", 1, 0, len(data), len(data), digest, 0, ()))
        assert self.index.encode(ino, token, number, len(data))
        self.staging.remove(token)
        return number
