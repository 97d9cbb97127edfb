"""Pictures between two jobs: looked at in one worker process, encoded in another.

A frame is the bulk of what would cross. It goes into anonymous memory (memfd_create(2)), which the
other process opens through /proc and maps: nothing is copied twice, nothing passes through a third
process, and nothing is left when both have ended.

The memory is sealed before anybody learns of it, and its name has the hash of the file, so that
what is found under a number used again is not taken for it. Where it is gone, or cannot be had on
this system, the file is taken apart once more. What crosses besides has a hash of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.png import Picture, Recipe, parse
from fsmount.codec.png.samples import Frame
from fsmount.errors import NotExact

# Pictures a process holds for others: the newest, by number and by bytes of their frames.
_MOST = 8
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Held:
    """A picture in the memory of process `by`, behind its descriptor `fd` (-1: not to be had)."""

    path: str
    sha256: bytes
    recipe: Recipe
    shape: tuple[int, int, int]
    dtype: str
    by: int
    fd: int
    proof: bytes

    def get(self, memory: WorkerMemory | None = None) -> Picture:
        """The picture; its frame cannot be written to. Raises NotExact and OSError.

        `memory`: that of this process, which may hold it.
        """
        if self.proof != _digest(self.sha256, self.recipe, self.shape, self.dtype):
            raise NotExact("changed while it was encoded")
        if self.by == os.getpid() and memory is not None and self.sha256 in memory.held:
            here: Holding = memory.held[self.sha256]
            return here.picture
        frame = self._mapped()
        return self._again(memory) if frame is None else Picture(frame, self.recipe)

    @property
    def frame(self) -> Frame:
        """The picture's frame."""
        return self.get().frame

    def _mapped(self) -> Frame | None:
        if self.fd < 0:
            return None
        try:
            fd = os.open(f"/proc/{self.by}/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if os.readlink(f"/proc/self/fd/{fd}") != f"/memfd:{_name(self.sha256)} (deleted)":
                return None
            # Of two files of the same bytes the second may be on its way to where the first was.
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) != _seals():
                return None
            flags = mmap.MAP_PRIVATE | mmap.MAP_POPULATE
            memory = mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        return np.frombuffer(memory, self.dtype).reshape(self.shape)

    def _again(self, memory: WorkerMemory | None) -> Picture:
        data = Path(self.path).read_bytes()
        if hashlib.sha256(data).digest() != self.sha256:
            raise NotExact("changed while it was encoded")
        params = self.recipe.params
        hints = (params,) if isinstance(params, DeflateParams) else ()
        return Picture(parse(data, hints, memory=memory).frame, self.recipe)


class Holding:
    """A picture and the memory its frame was copied to."""

    def __init__(self, sha256: bytes, picture: Picture) -> None:
        self.picture = picture
        self.fd = _memory(_name(sha256), picture.frame)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def hold(path: str, sha256: bytes, picture: Picture, memory: WorkerMemory) -> Held:
    """Keep the picture of the file `path` for a while: any process may :meth:`Held.get` it."""
    held = memory.held
    held.pop(sha256, None)
    while len(held) >= _MOST or _bytes(held) + picture.frame.nbytes > _MOST_BYTES:
        if not held:
            break
        held.popitem(last=False)
    holding = held[sha256] = Holding(sha256, picture)
    height, width, channels = picture.frame.shape
    shape = (height, width, channels)
    dtype = picture.frame.dtype.name
    recipe = picture.recipe
    proof = _digest(sha256, recipe, shape, dtype)
    return Held(path, sha256, recipe, shape, dtype, os.getpid(), holding.fd, proof)


def _digest(sha256: bytes, recipe: Recipe, shape: tuple[int, int, int], dtype: str) -> bytes:
    """A hash of all of a picture but its samples."""
    parts = repr((sha256, recipe.header(), recipe.blobs(), shape, dtype))
    return hashlib.sha256(parts.encode()).digest()


def _bytes(held: Mapping[bytes, Holding]) -> int:
    return sum(holding.picture.frame.nbytes for holding in held.values())


def _name(sha256: bytes) -> str:
    return f"fsmount-{sha256.hex()}"


def _seals() -> int:
    """Nothing may change in the memory any more. (A function: not every system has the names.)"""
    return fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def _memory(name: str, frame: Frame) -> int:
    """A descriptor of sealed memory that holds a frame, -1 where there is none to be had."""
    if not hasattr(os, "memfd_create"):
        return -1
    fd = -1
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        view = np.ascontiguousarray(frame).data.cast("B")
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _seals())
    except OSError:
        if fd >= 0:
            os.close(fd)
        return -1
    return fd
