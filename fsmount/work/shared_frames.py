"""Pictures that one worker process decodes and another one encodes.

A frame is the bulk of a picture. The first process copies it into sealed memory, which goes to the
other process by way of the process that owns the store. So the frame is copied once, and disappears
when nobody has it any more. If the memory is not available, the file is decoded again. The other
parts of a picture have a hash of their own.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.png import Picture, parse
from fsmount.codec.png.recipe import Recipe
from fsmount.codec.png.samples import Frame
from fsmount.errors import NotExact
from fsmount.work.sealed import Sealed


@dataclass(frozen=True)
class SharedPicture:
    """A picture that other processes can get.

    path, sha256 : those of the file.
    recipe : the recipe of the picture.
    shape, dtype : (height, width, channels) and sample type of the frame.
    samples : the samples of the frame, C-contiguous. None if the system has no memory for them.
    proof : hash of everything but the samples.
    """

    path: str
    sha256: bytes
    recipe: Recipe
    shape: tuple[int, int, int]
    dtype: str
    samples: Sealed | None
    proof: bytes

    def get(self, memory: WorkerMemory | None = None, *, whole: bool = True) -> Picture:
        """Return the picture; its frame is read-only.

        Parameters
        ----------
        memory : WorkerMemory, optional
            The memory of this process, for decoding the file again.
        whole : bool
            Whether most samples will be read.

        Raises
        ------
        NotExact
            If the file or this record has changed.
        OSError
            If the file cannot be read.
        """
        if self.proof != _digest(self.sha256, self.recipe, self.shape, self.dtype):
            raise NotExact("changed while it was encoded")
        frame = self._map(whole)
        return self._decode_again(memory) if frame is None else Picture(frame, self.recipe)

    @property
    def nbytes(self) -> int:
        """Bytes of the frame's samples."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def frame(self) -> Frame:
        """The picture's frame, as :meth:`get` returns it: shape `shape`, dtype `dtype`."""
        return self.get().frame

    def _map(self, whole: bool) -> Frame | None:
        """Return the frame from the sealed memory, or None if it is not available."""
        if self.samples is None:
            return None
        try:
            samples = self.samples.map(self.sha256.hex(), whole=whole)
        except OSError:
            return None
        return np.frombuffer(samples, self.dtype).reshape(self.shape)

    def _decode_again(self, memory: WorkerMemory | None) -> Picture:
        """Decode the file again."""
        data = Path(self.path).read_bytes()
        if hashlib.sha256(data).digest() != self.sha256:
            raise NotExact("changed while it was encoded")
        params = self.recipe.params
        hints = (params,) if isinstance(params, DeflateParams) else ()
        return Picture(parse(data, hints, memory=memory).frame, self.recipe)


def share(path: str, sha256: bytes, picture: Picture) -> SharedPicture:
    """Share the picture of the file `path`, whose hash is `sha256`."""
    frame, recipe = np.ascontiguousarray(picture.frame), picture.recipe
    height, width, channels = frame.shape
    shape, dtype = (height, width, channels), frame.dtype.name
    proof = _digest(sha256, recipe, shape, dtype)
    samples = Sealed.of([frame.data], sha256.hex())
    return SharedPicture(path, sha256, recipe, shape, dtype, samples, proof)


def _digest(sha256: bytes, recipe: Recipe, shape: tuple[int, int, int], dtype: str) -> bytes:
    """Return a hash of everything but the samples."""
    parts = repr((sha256, recipe.header(), recipe.blobs(), shape, dtype))
    return hashlib.sha256(parts.encode()).digest()
