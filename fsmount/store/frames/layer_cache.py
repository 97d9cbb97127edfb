"""The decoded layers of all workers: one cache, one budget, whatever the number of workers.

A job gets the layers that it needs and that are known (:class:`~fsmount.store.frames.layers.Loan`).
The layers that it decodes come back with its answer, mostly as sealed memory, and are lent to later
jobs. So a layer is decoded once for all workers, and counts once.

The cache never lets go of a layer that a running job uses. A frame may need more layers than fit:
then those stay that came first, because an ordinary LRU would have dropped each one just before its
next use.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from fsmount.store.frames.layers import Done, Key, Loan, SharedLayer
from fsmount.store.packs.location import Location
from fsmount.work.sealed import Sealed
from fsmount.work.workers import Workers

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

# An entry of this many bytes takes long to decode. A job waits until another one has done it.
_LARGE_ENTRY = 16 << 10
# Each layer in sealed memory is an open descriptor of this process.
_MOST_DESCRIPTORS = 256
# Layers in sealed memory that one job gets. Fewer than a message can hold.
_MOST_LENT = 200


class _Making:
    """An entry that a running job decodes."""

    def __init__(self, urgent: bool) -> None:
        self.urgent = urgent
        self.ended = trio.Event()


class LayerCache:
    """Runs jobs that decode layers, and keeps the layers.

    budget : bytes of layers.
    streams_bytes : bytes of deflate streams that each worker may keep.

    Contract: belongs to the trio task.
    """

    def __init__(self, budget: int, streams_bytes: int) -> None:
        self.streams_bytes = streams_bytes
        self.budget = budget
        # Least recently used first.
        self._kept: OrderedDict[Key, SharedLayer] = OrderedDict()
        self._used = 0
        self._descriptors = 0
        # Number of running jobs that use a layer.
        self._busy: Counter[Key] = Counter()
        self._making: dict[Key, _Making] = {}

    @property
    def used(self) -> int:
        """Bytes of layers held now."""
        return self._used

    async def run(
        self,
        workers: Workers,
        function: Callable[[Unpack[Ts], Loan], Done[T]],
        *args: *Ts,
        places: Sequence[Location],
        urgent: bool = False,
        slow: bool = False,
        priority: int = 0,
    ) -> T:
        """Run a job with the layers that are known of the objects at `places`.

        Waits first for jobs that decode a large one of them; an urgent job waits for urgent ones
        only, and nobody waits for a `slow` one. `urgent`, `priority` and the errors are those of
        :meth:`Workers.run`.
        """
        places = [place for place in places if place.has_layer]
        keys = [(place.pack, place.id) for place in places]
        while waited := self._others(keys, urgent):
            await waited.ended.wait()
        large = [
            (place.pack, place.id)
            for place in places
            if place.length >= _LARGE_ENTRY
            and not slow
            and (place.pack, place.id) not in self._kept
        ]
        making = _Making(urgent)
        for key in large:
            self._making.setdefault(key, making)

        async def job(loan: Loan) -> Done[T]:
            return await workers.run(function, *args, loan, urgent=urgent, priority=priority)

        return await self._run(job, keys, large, making)

    async def _run(
        self,
        job: Callable[[Loan], Awaitable[Done[T]]],
        keys: Sequence[Key],
        made: Collection[Key],
        making: _Making,
    ) -> T:
        """Run a job with a loan of the layers of `keys`. It is `making` those of `made`."""
        self._busy.update(keys)
        try:
            done = await job(Loan(self.streams_bytes, self._lend(keys)))
            # No await since the answer came: the layers are kept while their users are known.
            for layer in done.made:
                self._keep(layer)
        finally:
            self._busy.subtract(keys)
            self._busy = +self._busy
            for key in made:
                if self._making.get(key) is making:
                    del self._making[key]
            making.ended.set()
        return done.result

    async def prepare(
        self,
        workers: Workers,
        function: Callable[[Sequence[Location], Sequence[Location], Loan], Done[None]],
        places: Sequence[Location],
    ) -> None:
        """Have the layers of the objects at `places` decoded, before several jobs need them.

        `function` decodes those of its first argument, with the help of all `places`. Waits for
        layers that another call has decoded already. A layer may be missing afterwards. The errors
        are those of :meth:`Workers.run`.
        """
        keys = [(place.pack, place.id) for place in places]
        named = zip(keys, places, strict=True)
        missing = {key: at for key, at in named if at.has_layer and key not in self._kept}
        others = {self._making[key] for key in missing if key in self._making}
        own = {key: at for key, at in missing.items() if key not in self._making}
        if own and self.budget:
            making = _Making(urgent=False)
            self._making.update(dict.fromkeys(own, making))

            async def job(loan: Loan) -> Done[None]:
                # Before all that waits for it.
                return await workers.run(function, tuple(own.values()), places, loan, priority=1)

            # It waits for no other job, which might wait for it.
            await self._run(job, keys, own, making)
        for other in others:
            await other.ended.wait()

    def _others(self, keys: Iterable[Key], urgent: bool) -> _Making | None:
        """Return a running job that is worth waiting for, or None."""
        found = (self._making.get(key) for key in keys if key not in self._kept)
        return next((job for job in found if job is not None and job.urgent >= urgent), None)

    def _lend(self, keys: Iterable[Key]) -> tuple[SharedLayer, ...]:
        """Return the known layers of some objects. They become the most recently used ones."""
        lent = []
        sealed = 0
        for key in keys:
            layer = self._kept.get(key)
            if layer is not None:
                self._kept.move_to_end(key)
                sealed += isinstance(layer.tiles, Sealed)
                if sealed <= _MOST_LENT or not isinstance(layer.tiles, Sealed):
                    lent.append(layer)
        return tuple(lent)

    def _keep(self, layer: SharedLayer) -> None:
        """Keep a layer, if enough others can go."""
        self._drop(layer.key)
        is_sealed = isinstance(layer.tiles, Sealed)
        while self._used + layer.nbytes > self.budget:
            if not self._drop_oldest(sealed_only=False):
                return
        while is_sealed and self._descriptors >= _MOST_DESCRIPTORS:
            if not self._drop_oldest(sealed_only=True):
                return
        self._kept[layer.key] = layer
        self._used += layer.nbytes
        self._descriptors += is_sealed

    def _drop_oldest(self, *, sealed_only: bool) -> bool:
        """Let go of the least recently used layer that no job uses. False if there is none."""
        for key, layer in self._kept.items():
            if not self._busy[key] and (not sealed_only or isinstance(layer.tiles, Sealed)):
                self._drop(key)
                return True
        return False

    def _drop(self, key: Key) -> None:
        """Let go of a layer, if it is held. Jobs that have it keep it until they end."""
        layer = self._kept.pop(key, None)
        if layer is not None:
            self._used -= layer.nbytes
            self._descriptors -= isinstance(layer.tiles, Sealed)
