"""Frames on their way: planned in queue order, coded on all cores, appended in queue order.

A plan needs the features of the frame, and the plans of all frames before it; it needs no payload.
So :meth:`Frames.plan` is called in queue order, and takes about a millisecond unless moved tiles
are searched. :meth:`Frames.code` runs for several frames at once. A frame may copy tiles from a
frame that is still being coded: a **pending** one. :meth:`Frames.append` is called in queue order
again.

Why a file comes out right, although the objects it needs had no entries when it was coded:

1. The job of each frame decodes its new entry afresh, composes the frame, and compares all samples
   and the recipe with those of the look. For tiles of a pending object it takes that object's
   samples from *its* look, in the places that its plan codes anew
   (:class:`~fsmount.store.frames.pending.PendingObject`).
2. The job of the pending object makes the same comparison with the same sealed samples. It also
   compares the layer that its payload decodes to with the layer that others take from its look.
   :meth:`Frames.append` refuses an object that codes less than its plan said.
3. The record of a frame may be packed against that of a pending anchor. What the job took it to be
   is compared with what it is: :meth:`Frames.append` has the hashes of both. If they differ, the
   frame is coded again by the same plan, so frames that refer to it are not lost.
4. A frame is appended after all that it names. A frame whose pending object was not appended (it
   failed, its file was changed or removed, it is kept raw) is **lost**: its entry is dropped, and
   :meth:`Frames.code_anew` makes another one with objects that are appended.
   The dictionaries that entries name are appended in the same order
   (:mod:`~fsmount.store.ingest.dictionaries`); each job compares their content with its hash.
5. Entries join the commit in the order in which they are appended. So no committed frame names an
   object that is not committed, whatever a crash cuts off.
6. The columns of the row are computed here, after all objects below have theirs, from what the job
   says that the entry names. The check before the commit computes the proof of the job and the
   columns again, from the entry that it reads from the pack.
7. Until it is appended, an object is known here alone. A failed commit makes all claims void and
   clears the planner: later plans name nothing that was on its way then.

Contract: everything here belongs to the trio task.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import trio
from numpy.typing import NDArray

from fsmount.codec.delta.delta import OWN
from fsmount.errors import Damaged
from fsmount.store.frames import jobs
from fsmount.store.frames.features import FrameFeatures
from fsmount.store.frames.jobs import Encoded, EncodeOrder
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.layers import Done, Loan
from fsmount.store.frames.pending import PendingObject
from fsmount.store.frames.planner import Plan, Planner
from fsmount.store.frames.relations import Below, relations
from fsmount.store.index import Object
from fsmount.store.ingest import prove
from fsmount.store.ingest.dictionaries import Dictionaries
from fsmount.store.ingest.saved_tiles import SavedTiles
from fsmount.store.layout import Layout
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.pack import Entry
from fsmount.store.packs.writer import Writer
from fsmount.work.shared_frames import SharedPicture
from fsmount.work.workers import Workers

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Priorities of jobs; that of a look is 0. All later plans wait for a search, and all later entries
# for the entry of a frame.
_CODE = 1
_SEARCH = 2


@dataclass(eq=False, slots=True)
class Frame:
    """A frame on its way.

    about : the facts that its record gets.
    picture : its picture; None as soon as it is appended or dropped.
    features : what the look found.
    plan : the plan that it is coded by.
    below : the pending frames that it refers to, by object id. Empty as soon as it is appended.
    coded : set when its job has ended.
    encoded : the result of its job; None before, and if there is none.
    error : what its job raised.
    record : SHA-256 of its stored record; known as soon as it is appended.
    is_broken : whether an object that it refers to is missing.
    is_dropped : whether it will never be appended.
    """

    about: FileFacts
    picture: SharedPicture | None
    features: FrameFeatures
    plan: Plan
    below: dict[int, Frame] = field(default_factory=dict)
    coded: trio.Event = field(default_factory=trio.Event)
    encoded: Encoded | None = None
    error: Exception | None = None
    record: bytes = b""
    is_broken: bool = False
    is_dropped: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it cannot be appended, because of an object that it refers to."""
        return self.is_broken or any(other.is_dropped for other in self.below.values())

    def own(self) -> NDArray[np.bool_]:
        """Which tiles it codes anew by its plan: bool, shape (tile rows, tile columns)."""
        return np.asarray(self.plan.tiles == OWN)

    def pending(self) -> PendingObject:
        """Return what the jobs of other frames need of it. Only while it is pending."""
        assert self.picture is not None
        stored = b"" if self.encoded is None else self.encoded.entry.record
        return PendingObject(self.about, self.picture, self.plan, stored)


class AppendedFrame(NamedTuple):
    """A frame that is appended: its object, and the check before the commit."""

    new: Object
    check: Callable[[], None]


class CodingError(Exception):
    """A worker could not code the frame. The cause says why."""


class Frames:
    """Plans, codes and appends frames, and knows the pending ones.

    `layers` has the layers that the workers have decoded. `dictionaries` has the dictionaries that
    plans name.
    """

    def __init__(
        self,
        layout: Layout,
        writer: Writer,
        planner: Planner,
        tiles: SavedTiles,
        *,
        workers: Workers,
        layers: LayerCache,
        dictionaries: Dictionaries,
    ) -> None:
        self._layout = layout
        self._writer = writer
        self._planner = planner
        self._tiles = tiles
        self._workers = workers
        self._layers = layers
        self._dictionaries = dictionaries
        # Planned frames that are neither appended nor dropped, by object id, in order.
        self._pending: dict[int, Frame] = {}

    def is_pending(self, sha256: bytes, size: int) -> bool:
        """Whether a file with this hash and size is on its way."""
        frames = self._pending.values()
        return any((each.about.sha256, each.about.size) == (sha256, size) for each in frames)

    def pending(self, ids: Iterable[int]) -> list[PendingObject]:
        """Return those of some objects that have no entry yet."""
        return [self._pending[number].pending() for number in ids if number in self._pending]

    async def plan(
        self,
        about: FileFacts,
        picture: SharedPicture,
        features: FrameFeatures,
        is_current: Callable[[], bool],
    ) -> Frame | None:
        """Plan a frame. Call it in queue order; then :meth:`append` the result, or :meth:`drop` it.

        Returns None if `is_current`, called after each wait, says that nobody wants the frame any
        more. Raises OSError.
        """
        geometry = features.geometry
        if not self._planner.knows(geometry):
            self._tiles.load(geometry)
            self._dictionaries.load(geometry)
        frame = Frame(about, picture, features, self._planner.plan(features))
        if frame.plan.near:
            frame.plan = await self._with_moves(frame)
        else:
            # A plan, its note and the order of its job take a millisecond each. Programs that ask
            # the mount for something get their turn in between.
            await trio.lowlevel.checkpoint()
        if not is_current():
            return None
        frame.plan = self._planner.note(features, frame.plan, about.id)
        self._pending[about.id] = frame
        return frame

    async def _with_moves(self, frame: Frame) -> Plan:
        """Return the plan with copies of moved tiles. Without them if no worker can find any."""
        try:
            return await self._run(jobs.find_moves, frame, frame.plan.near, _SEARCH) or frame.plan
        except OSError:
            raise
        except Exception:
            _log.exception("%r: moved tiles are coded anew", frame.about.path)
            return replace(frame.plan, near=())

    async def code(self, frame: Frame) -> None:
        """Code a frame that is planned. :meth:`append` tells how that ended."""
        try:
            await trio.lowlevel.checkpoint()  # as in :meth:`plan`
            anchor = self._pending.get(frame.plan.anchor)
            if anchor is not None and anchor.plan.guess.any():
                # Which guesses pay is a part of its record. An anchor itself waits for nobody.
                await anchor.coded.wait()
            frame.plan, dictionary = await self._dictionaries.ready(frame.plan)
            wanted = frame.plan.objects()
            if dictionary is not None:
                wanted.discard(dictionary.object_id)
            frame.encoded = await self._run(jobs.encode, frame, wanted, _CODE, dictionary)
        except Exception as error:
            frame.error = error
        finally:
            frame.coded.set()

    async def _run(
        self,
        job: Callable[[EncodeOrder, Loan], Done[T]],
        frame: Frame,
        wanted: Collection[int],
        priority: int,
        dictionary: Entry | None = None,
    ) -> T | None:
        """Run a job that reads the layers of the objects `wanted`. Mark a lost frame.

        Returns None for a lost frame. Raises OSError, and what the job raises.
        """
        assert frame.picture is not None
        below = {i: self._pending[i] for i in wanted if i in self._pending}
        with self._writer.packs.reading():
            try:
                places = self._writer.places(i for i in wanted if i not in below)
            except Damaged:
                self._forget_missing(wanted)
                frame.is_broken = True
                return None
            frame.below |= below
            order = EncodeOrder(
                frame.about,
                frame.picture,
                frame.plan,
                places,
                tuple(other.pending() for other in below.values()),
                self._writer.next_pack(),
                dictionary,
            )
            return await self._layers.run(
                self._workers, job, order, places=places, priority=priority
            )

    def _forget_missing(self, ids: Iterable[int]) -> None:
        """Let no later plan name those of some objects that do not exist here."""
        for object_id in ids:
            try:
                self._writer.places([object_id])
            except Damaged:
                if object_id not in self._pending:
                    self._planner.forget(object_id)

    async def code_anew(
        self,
        about: FileFacts,
        picture: SharedPicture,
        features: FrameFeatures,
        is_current: Callable[[], bool],
    ) -> Frame | None:
        """Plan a frame with appended objects alone, and code it.

        For a file whose turn it is to be appended. As :meth:`plan`.
        """
        for object_id in self._pending:
            self._planner.forget(object_id)
        frame = await self.plan(about, picture, features, is_current)
        if frame is not None:
            await self.code(frame)
            if not is_current():
                self.drop(frame)
                return None
        return frame

    async def append(self, frame: Frame, is_current: Callable[[], bool]) -> AppendedFrame | None:
        """Append a frame that is coded. Call it in queue order.

        Returns None if the frame is lost, if `is_current`, called after a wait, says that nobody
        wants it any more, or if the writer gave everything up. There is no await between the moment
        when the entry counts and the return. Raises :class:`CodingError`, OSError,
        :class:`Damaged`.
        """
        if self._is_stale(frame):
            # By now all that it refers to is appended, so the job reads what is there.
            frame.below = {}
            await self.code(frame)
            if frame.is_lost or not is_current():
                return None
        if isinstance(frame.error, OSError):
            raise frame.error
        if frame.error is not None:
            raise CodingError from frame.error
        encoded = frame.encoded
        assert encoded is not None
        named = encoded.proof.references
        levels = dict(encoded.proof.levels)
        if levels.keys() != named.layers() or (frame.own() & ~encoded.layout.own()).any():
            raise Damaged(f"object {frame.about.id}", reason="a wrong answer of a worker")
        below = {i: self._below(frame, i, known) for i, known in levels.items()}
        row = relations(named, below)._asdict()
        new = await self._writer.append(encoded.entry, frame.about, kind=encoded.kind, **row)
        if new is None:
            return None
        frame.record = hashlib.sha256(encoded.entry.record).digest()
        self._leave(frame)
        if encoded.fell_back:
            _log.warning("object %d: its references were of no use; coded whole", new.id)
            for used in frame.plan.objects():
                self._planner.forget(used)
        self._planner.coded(frame.features, frame.plan, encoded.layout, new.id)
        pack = self._layout.pack(new.pack)
        check = partial(prove.check_frame, pack, new, frame.about, encoded.proof, below)
        return AppendedFrame(new, check)

    def _is_stale(self, frame: Frame) -> bool:
        """Whether the record of a coded frame is packed against what its anchor did not become."""
        if frame.encoded is None:
            return False
        proof = frame.encoded.proof
        if not proof.anchor:
            # The anchor was appended before, also if it was pending in an earlier job of the frame.
            return False
        anchor = frame.below.get(proof.references.anchor)
        return anchor is not None and anchor.record != proof.anchor

    def _below(self, frame: Frame, object_id: int, known: int) -> Below:
        """Return what a layer rests on. `known` is the level that the job of `frame` says.

        A job does not know the levels of pending objects; the planner learns them when they are
        appended.
        """
        level = self._planner.level(frame.features.geometry, object_id)
        return Below(self._writer.object(object_id).layer, known if level is None else level)

    def drop(self, frame: Frame) -> None:
        """Give a frame up, unless it is appended. Frames that refer to it are lost then."""
        if frame.about.id in self._pending:
            self._leave(frame)
            frame.is_dropped = True
            frame.coded.set()
            self._planner.forget(frame.about.id)

    def _leave(self, frame: Frame) -> None:
        """End the time in which a frame is pending. Free what only its own job needs."""
        del self._pending[frame.about.id]
        # Without this each frame would keep all frames before it.
        frame.below = {}
        frame.picture = None
