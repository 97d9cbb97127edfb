"""Pictures that one worker process decodes and another one encodes.

A frame is the bulk of a picture. The first process copies it into anonymous memory
(memfd_create(2)), which the other process opens through /proc and maps. So the frame is not copied
again, does not pass through a third process, and disappears when both processes have ended.

The memory is sealed before another process learns of it, and its name contains the hash of the
file. So a descriptor number that is used again is not mistaken for it. If the memory is gone, or
the system has no memfd, the file is decoded again. The other parts of a picture have a hash of
their own.
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

# Limits of the pictures that a process holds for others; the oldest ones are dropped.
_MAX_PICTURES = 8
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class SharedPicture:
    """A picture in the memory of process ``by``, under its descriptor ``fd`` (-1: not available).

    It can be pickled. ``path`` and ``sha256`` are those of the file; ``shape`` is (height, width,
    channels); ``proof`` is a hash of everything but the samples.
    """

    path: str
    sha256: bytes
    recipe: Recipe
    shape: tuple[int, int, int]
    dtype: str
    by: int
    fd: int
    proof: bytes

    def get(self, memory: WorkerMemory | None = None) -> Picture:
        """Return the picture; its frame is read-only.

        Parameters
        ----------
        memory : WorkerMemory, optional
            The memory of this process, which may hold the picture.

        Raises
        ------
        NotExact
            If the file or this record has changed.
        OSError
            If the file cannot be read.
        """
        if self.proof != _digest(self.sha256, self.recipe, self.shape, self.dtype):
            raise NotExact("changed while it was encoded")
        if self.by == os.getpid() and memory is not None:
            local = memory.held.get(self.sha256)
            if isinstance(local, LocalPicture):
                return local.picture
        frame = self._map()
        return self._decode_again(memory) if frame is None else Picture(frame, self.recipe)

    @property
    def frame(self) -> Frame:
        """The picture's frame, as :meth:`get` returns it: shape `shape`, dtype `dtype`."""
        return self.get().frame

    def _map(self) -> Frame | None:
        """Return the frame from the memory of the other process, or None if it is not there."""
        if self.fd < 0:
            return None
        try:
            fd = os.open(f"/proc/{self.by}/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if os.readlink(f"/proc/self/fd/{fd}") != f"/memfd:{_name(self.sha256)} (deleted)":
                return None
            # Another copy of the same file may still be being written under this descriptor.
            # Unsealed means not ready.
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) != _seals():
                return None
            flags = mmap.MAP_PRIVATE | mmap.MAP_POPULATE
            memory = mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        return np.frombuffer(memory, self.dtype).reshape(self.shape)

    def _decode_again(self, memory: WorkerMemory | None) -> Picture:
        """Decode the file again."""
        data = Path(self.path).read_bytes()
        if hashlib.sha256(data).digest() != self.sha256:
            raise NotExact("changed while it was encoded")
        params = self.recipe.params
        hints = (params,) if isinstance(params, DeflateParams) else ()
        return Picture(parse(data, hints, memory=memory).frame, self.recipe)


class LocalPicture:
    """A picture, and the memory that holds a copy of its frame."""

    def __init__(self, sha256: bytes, picture: Picture) -> None:
        self.picture = picture
        self.fd = _memory(_name(sha256), picture.frame)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def share(path: str, sha256: bytes, picture: Picture, memory: WorkerMemory) -> SharedPicture:
    """Share the picture of a file, so that any process may :meth:`SharedPicture.get` it.

    The oldest pictures are dropped beyond 8 pictures or 256 MiB.

    Parameters
    ----------
    path : str
        The file.
    sha256 : bytes
        Its hash.
    picture : Picture
        Its picture.
    memory : WorkerMemory
        The memory of this process, which holds the picture.
    """
    held = memory.held
    held.pop(sha256, None)
    while len(held) >= _MAX_PICTURES or _bytes(held) + picture.frame.nbytes > _MAX_BYTES:
        if not held:
            break
        held.popitem(last=False)
    local = LocalPicture(sha256, picture)
    held[sha256] = local
    height, width, channels = picture.frame.shape
    shape = (height, width, channels)
    dtype = picture.frame.dtype.name
    recipe = picture.recipe
    proof = _digest(sha256, recipe, shape, dtype)
    return SharedPicture(path, sha256, recipe, shape, dtype, os.getpid(), local.fd, proof)


def _digest(sha256: bytes, recipe: Recipe, shape: tuple[int, int, int], dtype: str) -> bytes:
    """Return a hash of everything but the samples."""
    parts = repr((sha256, recipe.header(), recipe.blobs(), shape, dtype))
    return hashlib.sha256(parts.encode()).digest()


def _bytes(held: Mapping[bytes, object]) -> int:
    """Return the bytes of all frames held."""
    pictures = (local for local in held.values() if isinstance(local, LocalPicture))
    return sum(local.picture.frame.nbytes for local in pictures)


def _name(sha256: bytes) -> str:
    """Return the name of the memory of a file."""
    return f"fsmount-{sha256.hex()}"


def _seals() -> int:
    """Return the seals that forbid every change. A function, because not every system has them."""
    return fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def _memory(name: str, frame: Frame) -> int:
    """Return a descriptor of sealed memory with a copy of a frame, or -1 if the system has none."""
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
