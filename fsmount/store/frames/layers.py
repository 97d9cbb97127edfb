"""Decoded layers on their way from one job to the next, in whatever worker process that runs.

A job gets the layers that other jobs have decoded, as a :class:`Loan`, and gives back the ones that
it decoded itself, as :class:`SharedLayer`. The process that owns the store keeps them in between
(:mod:`fsmount.store.frames.layer_cache`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from fsmount.codec.delta.delta import TILE, Layer, tile_grid
from fsmount.codec.memory import WorkerMemory
from fsmount.lru import Lru
from fsmount.work.sealed import Sealed

T_co = TypeVar("T_co", covariant=True)

Key = tuple[str, int]
"""Path of the pack, and id of the object: an object that was moved is another one."""

# A smaller layer travels as bytes. A descriptor and a mapping would cost more than a copy.
_INLINE_BYTES = 16 << 10


@dataclass(frozen=True)
class DecodedLayer:
    """A decoded layer.

    level : number of residual layers in its longest path. 0: it is predicted from no other layer.
    """

    layer: Layer
    level: int


@dataclass(frozen=True)
class SharedLayer:
    """A :class:`DecodedLayer` that goes to another process.

    key : what it is the layer of.
    shape, dtype : (height, width, channels) and sample type of the frame.
    count : number of tiles.
    level : as in :class:`DecodedLayer`.
    tiles : index (int32) and pixels of the :class:`Layer`, one behind the other.
    proof : hash of all that is not in sealed memory.
    """

    key: Key
    shape: tuple[int, int, int]
    dtype: str
    count: int
    level: int
    tiles: Sealed | bytes
    proof: bytes

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.tiles.size if isinstance(self.tiles, Sealed) else len(self.tiles)

    def known(self) -> DecodedLayer | None:
        """Return the layer. None if its memory is not available, or if the record has changed.

        A value that changed on its way must not reach an entry. The caller decodes the layer
        instead.
        """
        if self.proof != _digest(self):
            return None
        try:
            data = self.tiles.map(_name(self.key)) if isinstance(self.tiles, Sealed) else self.tiles
        except OSError:
            return None
        rows, columns = tile_grid(self.shape)
        index = np.frombuffer(data, np.int32, rows * columns).reshape(rows, columns)
        pixels = np.frombuffer(data, self.dtype, offset=index.nbytes)
        tiles = pixels.reshape(self.count, TILE, TILE, self.shape[2])
        return DecodedLayer(Layer(self.shape, tiles, index), self.level)


def share(key: Key, known: DecodedLayer) -> SharedLayer | None:
    """Make a layer ready for other processes. None if the system has no memory for it."""
    layer = known.layer
    index, pixels = np.ascontiguousarray(layer.index), np.ascontiguousarray(layer.pixels)
    parts = [index.data.cast("B"), pixels.data.cast("B")] if len(pixels) else [index.data.cast("B")]
    tiles = b"".join(parts) if layer.nbytes <= _INLINE_BYTES else Sealed.of(parts, _name(key))
    if tiles is None:
        return None
    dtype = pixels.dtype.name
    made = SharedLayer(key, layer.shape, dtype, len(pixels), known.level, tiles, b"")
    return SharedLayer(**{**vars(made), "proof": _digest(made)})


def _name(key: Key) -> str:
    """Return the name of the sealed memory of a layer."""
    return hashlib.sha256(repr(key).encode()).hexdigest()


def _digest(shared: SharedLayer) -> bytes:
    """Return the hash of all that is not in sealed memory."""
    facts = shared.key, shared.shape, shared.dtype, shared.count, shared.level
    whole = hashlib.sha256(repr((facts, shared.nbytes)).encode())
    if isinstance(shared.tiles, bytes):
        whole.update(shared.tiles)
    return whole.digest()


class Loan(NamedTuple):
    """What a job may use and keep.

    streams_bytes : bytes of deflate streams that the process may keep for its next job.
    layers : layers that the job may need.
    """

    streams_bytes: int = 0
    layers: tuple[SharedLayer, ...] = ()


@dataclass(frozen=True)
class Done(Generic[T_co]):
    """The result of a job, and the layers that it decoded."""

    result: T_co
    made: tuple[SharedLayer, ...] = ()


class Layers(Protocol):
    """Where a reader finds layers that are decoded already, and leaves others."""

    def get(self, key: Key) -> DecodedLayer | None:
        """Return a layer, or None."""

    def put(self, key: Key, known: DecodedLayer) -> None:
        """Take a layer that was decoded."""

    def __contains__(self, key: Key) -> bool:
        """Whether :meth:`get` has a layer, as far as can be told at no cost."""


class _Mapped(NamedTuple):
    """A lent layer in sealed memory, as this process has it mapped."""

    known: DecodedLayer
    proof: bytes
    inode: int


class JobLayers:
    """The layers of one job: those of its loan, and those that it decodes.

    `memory` keeps the mappings of lent layers for the next job, which is lent most of them again:
    to map one takes a tenth of a millisecond. So a worker that waits has those of its latest job.
    """

    def __init__(self, loan: Loan, memory: WorkerMemory | None = None) -> None:
        self._lent = {shared.key: shared for shared in loan.layers}
        self._mapped: dict[Hashable, object] = {}
        if memory is not None:
            self._mapped = {key: memory.lent[key] for key in self._lent if key in memory.lent}
            memory.lent = self._mapped
        self._known: dict[Key, DecodedLayer] = {}
        self._made: dict[Key, DecodedLayer] = {}

    @property
    def count(self) -> int:
        """Number of layers that the job has decoded so far."""
        return len(self._made)

    @property
    def nbytes(self) -> int:
        """Their bytes."""
        return sum(known.layer.nbytes for known in self._made.values())

    def get(self, key: Key) -> DecodedLayer | None:
        """See :class:`Layers`."""
        found = self._known.get(key) or self._made.get(key)
        if found is None and key in self._lent:
            found = self._take(key, self._lent[key])
            if found is None:
                del self._lent[key]
            else:
                self._known[key] = found
        return found

    def _take(self, key: Key, shared: SharedLayer) -> DecodedLayer | None:
        """Return a lent layer, or None if it is of no use."""
        if not isinstance(shared.tiles, Sealed):
            return shared.known()
        inode = shared.tiles.inode
        mapped = self._mapped.pop(key, None)
        # The same record, and the same memory, which nobody can change.
        if not isinstance(mapped, _Mapped) or (mapped.proof, mapped.inode) != (shared.proof, inode):
            known = shared.known()
            if known is None:
                return None
            mapped = _Mapped(known, shared.proof, inode)
        self._mapped[key] = mapped
        return mapped.known

    def put(self, key: Key, known: DecodedLayer) -> None:
        """See :class:`Layers`."""
        if key not in self._known:
            self._made[key] = known

    def __contains__(self, key: Key) -> bool:
        return key in self._lent or key in self._made

    def made(self) -> tuple[SharedLayer, ...]:
        """Return the layers that the job decoded, ready for other processes."""
        shared = (share(key, known) for key, known in self._made.items())
        return tuple(layer for layer in shared if layer is not None)


class LruLayers:
    """Layers that one process keeps for itself, up to `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self._kept: Lru[Key, DecodedLayer] = Lru(budget)

    def get(self, key: Key) -> DecodedLayer | None:
        """See :class:`Layers`."""
        return self._kept.get(key)

    def put(self, key: Key, known: DecodedLayer) -> None:
        """See :class:`Layers`."""
        self._kept.put(key, known, known.layer.nbytes)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept
