"""Makes dictionaries for pictures with few new tiles, beside the pictures themselves.

The planner says when one is due, and of which objects it is made. It is an object of its own that
no file shows. Like a frame, it is planned in queue order, so plans depend on nothing else: later
plans name it at once. The task of the frame before it makes it. Who codes a frame with it waits for
it, and who appends a frame first appends all dictionaries that were planned before. So no entry in
a pack names a dictionary that is not there. A dictionary that cannot be made is left out; that
costs space and nothing else.

Contract: everything here belongs to the trio task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from fsmount.errors import Damaged
from fsmount.store.frames.dictionary import make_dictionary
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.pending import PendingObject
from fsmount.store.frames.planner import Plan, Planner
from fsmount.store.index import Index
from fsmount.store.ingest import prove
from fsmount.store.ingest.claims import Claim, Claims
from fsmount.store.ingest.outcome import Appended
from fsmount.store.layout import Layout
from fsmount.store.packs import entries
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry
from fsmount.store.packs.writer import Writer
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# Tiles that keep more than this share of their bytes are something like noise: they would cost more
# than they save. The tiles of three desktops kept 2 to 8 %.
_MOST_SHARE = 0.15
# Other frames wait for it.
_PRIORITY = 1


@dataclass(eq=False, slots=True)
class NewDictionary:
    """A dictionary that is not appended yet.

    id, geometry : number of its object, and the geometry that it is for.
    ids : the objects that it is made of, oldest first.
    claim : that of the file that it was planned behind. It is void after a give-up.
    before : the dictionary that it takes the place of, or 0.
    made : set when its job has ended.
    about, entry : what is appended; None before, and if it cannot be made.
    """

    id: int
    geometry: str
    ids: tuple[int, ...]
    claim: Claim
    before: int
    made: trio.Event = field(default_factory=trio.Event)
    about: FileFacts | None = None
    entry: Entry | None = None


class Dictionaries:
    """Plans, makes and appends dictionaries.

    ids : yields the numbers of new objects.
    add : takes an appended dictionary into the next commit. Does not await.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        writer: Writer,
        planner: Planner,
        claims: Claims,
        ids: Iterator[int],
        *,
        workers: Workers,
        layers: LayerCache,
        add: Callable[[Appended], None],
    ) -> None:
        self._layout = layout
        self._index = index
        self._writer = writer
        self._planner = planner
        self._claims = claims
        self._ids = ids
        self._workers = workers
        self._layers = layers
        self._add = add
        # In the order of their plans; also those that could not be made.
        self._new: dict[int, NewDictionary] = {}

    def load(self, geometry: str) -> None:
        """Let plans name the newest dictionary of a geometry that the index knows."""
        number = self._index.dictionary(geometry)
        found = None if number is None else self._index.known_object(number)
        if found is not None and found.kind == entries.DICTIONARY and self._writer.is_here(found):
            self._planner.use_dictionary(geometry, found.id, is_new=False)

    def plan(self, geometry: str, claim: Claim) -> NewDictionary | None:
        """Plan a dictionary, if one is due. Call it behind each plan; :meth:`make` the result."""
        ids = self._planner.for_dictionary(geometry)
        if not ids:
            return None
        number = next(self._ids)
        before = self._planner.use_dictionary(geometry, number, is_new=True)
        new = self._new[number] = NewDictionary(number, geometry, ids, claim, before)
        return new

    async def make(
        self, new: NewDictionary, pending: Callable[[Iterable[int]], list[PendingObject]]
    ) -> None:
        """Make a dictionary that is planned. Failures are logged.

        `pending` finds those of some objects that have no entry yet.
        """
        try:
            with self._writer.packs.reading():
                waiting = pending(new.ids)
                stored = set(new.ids) - {each.about.id for each in waiting}
                found = {object_id: self._places(object_id) for object_id in stored}
                # Several layers may need the same entry.
                places = tuple(dict.fromkeys(place for some in found.values() for place in some))
                gone = {object_id for object_id, some in found.items() if not some}
                made = await self._layers.run(
                    self._workers,
                    make_dictionary,
                    tuple(object_id for object_id in new.ids if object_id not in gone),
                    places,
                    tuple(waiting),
                    places=places,
                    priority=_PRIORITY,
                )
            if len(made.payload) <= _MOST_SHARE * made.size:
                new.about = FileFacts(new.id, "", 0, made.sha256, made.size)
                new.entry = entries.dictionary_entry(new.about, made.payload)
        except Exception as error:
            foreseen = isinstance(error, Damaged | OSError)
            _log.warning("no dictionary: %s", error, exc_info=None if foreseen else error)
        finally:
            if new.entry is None:
                self._planner.drop_dictionary(new.geometry, new.id, new.before)
            new.made.set()

    def _places(self, object_id: int) -> tuple[Location, ...]:
        """Where an object and those that its layer needs are; () if it is not there any more."""
        try:
            return self._writer.places([object_id])
        except Damaged:
            return ()

    async def ready(self, plan: Plan) -> tuple[Plan, Entry | None]:
        """Wait for the dictionary of a plan. Return its entry if it is not appended yet.

        Returns a plan without a dictionary if it could not be made.
        """
        new = self._new.get(plan.dictionary)
        if new is None:
            return plan, None
        await new.made.wait()
        return (plan if new.entry is not None else replace(plan, dictionary=0)), new.entry

    async def append(self, before: int, claim: Claim) -> None:
        """Append the dictionaries with numbers below `before`, in the turn of a file.

        `claim` is that of the file. There is no await between the moment when an entry counts and
        its outcome. Raises OSError, :class:`Damaged`, as :meth:`Writer.append`.
        """
        for new in [new for new in self._new.values() if new.id < before]:
            await new.made.wait()
            if self._claims.is_void(claim):
                return
            if new.entry is None or new.about is None:
                # It stays: plans that name it learn from it that there is none.
                continue
            if not self._claims.is_void(new.claim):
                row = await self._writer.append(new.entry, new.about, kind=entries.DICTIONARY)
                if row is None:
                    return
                check = partial(prove.check_dictionary, self._layout.pack(row.pack), row, new.about)
                self._add(Appended(claim, row.id, row.size, row, check, dictionary=new.geometry))
            del self._new[new.id]
