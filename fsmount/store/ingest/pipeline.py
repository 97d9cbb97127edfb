"""One file's way from a staged body or a source to an entry in the open pack.

Steps: *look* (a worker takes the PNG apart; several files at once), *plan* (one file after the
other in queue order, since a frame may take tiles from the one before), *code* (several at once),
and *append* to the open pack (in queue order). :mod:`fsmount.store.ingest.frames` has the last
three for pictures. A file has two slots (:class:`~fsmount.store.ingest.sequencer.Turns`): it enters
one after the look, to be planned, and the other to be appended.

Contract: everything here belongs to the trio task. After each await the pipeline asks whether its
claim is still current. Threads and workers alone touch the disk. Between the return of
:meth:`Writer.append` and the return of :meth:`Pipeline.run` there is no await, so that a commit
knows all entries that its packs hold.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fsmount import threads
from fsmount.codec.images import images
from fsmount.codec.png.png import NOT_A_PNG
from fsmount.errors import Damaged, FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.stamp import stamp
from fsmount.store.frames.jobs import Look, Transcoded
from fsmount.store.index import Index, Object
from fsmount.store.ingest import large, prove
from fsmount.store.ingest.claims import Claim, Claims
from fsmount.store.ingest.dictionaries import Dictionaries
from fsmount.store.ingest.frames import CodingError, Frame, Frames
from fsmount.store.ingest.inputs import Inputs, Refused
from fsmount.store.ingest.look import Looker, why_raw
from fsmount.store.ingest.outcome import Appended, Outcome, Retry, Skipped
from fsmount.store.ingest.queue import final_name
from fsmount.store.ingest.sequencer import Turns
from fsmount.store.ingest.under_way import Place
from fsmount.store.layout import Layout
from fsmount.store.packs import entries
from fsmount.store.packs.bodies import dump_sums, sum_up
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# A file whose plan names an object that does not exist is planned anew, without that object. After
# this many plans it is tried again later.
_MOST_PLANS = 8


class Pipeline:
    """Takes files from claim to append.

    `ids` yields the numbers of new objects.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        staging: Staging,
        disk: Disk,
        writer: Writer,
        inputs: Inputs,
        claims: Claims,
        ids: Iterator[int],
        *,
        looker: Looker,
        frames: Frames,
        dictionaries: Dictionaries,
    ) -> None:
        self._layout = layout
        self._index = index
        self._staging = staging
        self._disk = disk
        self._writer = writer
        self._inputs = inputs
        self._claims = claims
        self._ids = ids
        self._looker = looker
        self._frames = frames
        self._dictionaries = dictionaries

    async def run(self, ino: int, turns: Turns, place: Place) -> Outcome:
        """Take one file through all steps. The caller leaves `turns` and `place` afterwards.

        Raises OSError, and Damaged if a worker and this process read other bytes of a staged file.
        For a source it raises Refused instead, also if the source must be staged.
        """
        try:
            return await self._run(ino, turns, place)
        finally:
            self._looker.passed(turns.number)

    async def _run(self, ino: int, turns: Turns, place: Place) -> Outcome:
        """See :meth:`run`."""
        claim = await self._claims.claim(ino)
        if claim is None:
            return Skipped.NOT_STAGED
        path = self._inputs.file(claim.token)
        if self._staging.has_failed(claim.token):
            await self._rescue(claim)
            return Skipped.RESCUED
        if await self._is_large(ino, path):
            turns.plan.leave()
            await turns.append.enter()
            return await self._keep(claim, path, NOT_A_PNG)
        seen = await self._looker.look(ino, path, turns.number)
        place.looked_at(seen.picture.nbytes if seen.picture is not None else 0)
        same = await threads.call(Kind.STAGED, self._is_same, claim, path, seen)
        transcoded: Transcoded | str | None = None
        if self._is_new_jpeg(seen):
            transcoded = await self._looker.transcode(ino, path, seen.sha256)
        await turns.plan.enter()
        if not self._claims.is_current(claim):
            return self._lapsed(claim)
        if not same:
            raise self._changed(claim, path, "a worker says another hash")
        frame = await self._plan(claim, seen)
        try:
            new = None
            if frame is not None:
                new = self._dictionaries.plan(frame.features.geometry, claim)
            turns.plan.leave()
            if new is not None:
                await self._dictionaries.make(new, self._frames.pending)
            if frame is not None:
                await self._frames.code(frame)
            await turns.append.enter()
            return await self._end(claim, path, seen, transcoded, frame)
        finally:
            if frame is not None:
                self._frames.drop(frame)

    async def _is_large(self, ino: int, path: Path) -> bool:
        """Whether a file goes to ``raw/`` without a look. Raises OSError."""
        source = self._inputs.source(ino)
        if source is not None and not large.may_be_large(source.info.st_size):
            # If it grows, it is refused.
            return False
        return await threads.call(Kind.STAGED, large.is_large, path)

    async def _end(
        self,
        claim: Claim,
        path: Path,
        seen: Look,
        transcoded: Transcoded | str | None,
        frame: Frame | None,
    ) -> Outcome:
        """Append what a file turned out to be. The file has its turn to be appended."""
        if not self._claims.is_current(claim):
            return self._lapsed(claim)
        there = self._find(seen)
        if there is not None:
            return Appended(claim, there, seen.size, None)
        if isinstance(transcoded, Transcoded):
            return await self._jpeg(claim, seen, transcoded)
        reason = transcoded or seen.reason
        if seen.picture is not None:
            try:
                return await self._append(claim, seen, frame)
            except CodingError as error:
                cause = error.__cause__
                assert isinstance(cause, Exception)
                reason = why_raw(cause, self._name(claim.ino))
        if seen.size > large.KEEP_BYTES:
            return await self._keep(claim, path, reason)
        return await self._raw(claim, path, seen, reason)

    def _is_same(self, claim: Claim, path: Path, seen: Look) -> bool:
        """Whether a file is as a look says, and a source as it was before. Runs in a thread.

        Raises OSError.
        """
        source = self._inputs.source(claim.ino)
        same = prove.is_staged(path, seen.sha256, seen.size)
        return same and (source is None or stamp(path.lstat()) == stamp(source.info))

    def _changed(self, claim: Claim, path: Path, reason: str) -> Exception:
        """The error for a file that this process reads otherwise than a worker did."""
        if self._inputs.source(claim.ino) is not None:
            return Refused(f"{path} changed while it was read")
        return Damaged(path, reason=reason)

    def _is_new_jpeg(self, seen: Look) -> bool:
        """Whether a transcode may make the file smaller: it is a JPEG that the store lacks."""
        if not seen.jpeg or seen.size > large.KEEP_BYTES:
            return False
        return self._writer.find(seen.sha256, seen.size) is None

    def _lapsed(self, claim: Claim) -> Outcome:
        """The outcome for a claim that is not current any more."""
        return Retry(claim) if self._claims.is_void(claim) else Skipped.CHANGED

    async def _rescue(self, claim: Claim) -> None:
        """Replace a staged file whose fsync failed.

        The bytes that the kernel still has in memory go to a new staged file. Without them the
        file moves to ``lost/``: the disk may hold other bytes than the program wrote.
        """
        found = await threads.call(Kind.STAGED, self._copy_rescued, claim.token)
        if not self._claims.is_same_body(claim):
            if found is not None:
                await threads.finish(Kind.WRITE, self._staging.remove, found[0])
        elif found is None:
            name = self._index.path(claim.ino)
            self._staging.condemn(claim.token)
            place = await threads.call(Kind.WRITE, self._staging.set_aside, claim.token)
            _log.critical("%r is lost: the disk did not take it; what it has is in %s", name, place)
        else:
            try:
                self._index.stage(claim.ino, *found)
            except BaseException:
                await threads.finish(Kind.WRITE, self._staging.remove, found[0])
                raise
            self._writer.discard(claim.token)

    def _copy_rescued(self, token: int) -> tuple[int, int] | None:
        """The token and size of a new staged file, if one could be made. Runs in a thread."""
        fresh = self._staging.rescue(token)
        return None if fresh is None else (fresh, self._staging.size(fresh))

    # -- one method for each kind of body

    async def _plan(self, claim: Claim, seen: Look) -> Frame | None:
        """Plan a picture whose turn it is, if it is new. Returns None if there is nothing to code.

        Raises OSError.
        """
        if seen.picture is None or seen.features is None:
            return None
        if self._frames.is_pending(seen.sha256, seen.size) or self._find(seen) is not None:
            return None
        return await self._frames.plan(
            self._about(claim, seen.sha256, seen.size),
            seen.picture,
            seen.features,
            partial(self._claims.is_current, claim),
        )

    def _find(self, seen: Look) -> int | None:
        """The id of an object with the same bytes, or None."""
        return self._writer.find(seen.sha256, seen.size)

    async def _append(self, claim: Claim, seen: Look, frame: Frame | None) -> Outcome:
        """Append a picture whose turn it is. Raises CodingError, OSError, Damaged.

        `frame`: the picture, planned and coded. If there is none, because an equal file had come
        before, or if it is lost, the picture is coded anew.
        """
        assert seen.picture is not None
        assert seen.features is not None
        is_current = partial(self._claims.is_current, claim)
        for _ in range(_MOST_PLANS):
            try:
                if frame is not None and not frame.is_lost:
                    await self._dictionaries.append(frame.about.id, claim)
                    # Without an await between this and the writer's own look at what is given up:
                    # what it appends for a void claim is in no batch, so nobody reads it back.
                    if self._claims.is_void(claim):
                        return self._lapsed(claim)
                    made = await self._frames.append(frame, is_current)
                    if made is not None:
                        return Appended(claim, made.new.id, seen.size, made.new, made.check)
                    if not frame.is_lost:
                        return self._lapsed(claim)
            finally:
                if frame is not None:
                    self._frames.drop(frame)
            about = self._about(claim, seen.sha256, seen.size)
            frame = await self._frames.code_anew(about, seen.picture, seen.features, is_current)
            if frame is None:
                return self._lapsed(claim)
        raise Damaged(self._name(claim.ino), reason="its plans name objects that do not exist")

    async def _jpeg(self, claim: Claim, seen: Look, found: Transcoded) -> Outcome:
        about = self._about(claim, seen.sha256, seen.size)
        entry = entries.jpeg_entry(about, found.payload)
        new = await self._writer.append(entry, about, kind=entries.JPEG)
        if new is None:
            return self._lapsed(claim)
        check = self._check(prove.check_whole, new, about, found.proof, images.JXL)
        return Appended(claim, new.id, seen.size, new, check)

    async def _raw(self, claim: Claim, path: Path, seen: Look, reason: str) -> Outcome:
        payload = await threads.call(Kind.STAGED, path.read_bytes)
        if not self._claims.is_current(claim):
            return self._lapsed(claim)
        if hashlib.sha256(payload).digest() != seen.sha256:
            raise self._changed(claim, path, "it has other bytes than before")
        about = self._about(claim, seen.sha256, seen.size)
        entry = entries.raw_entry(about, reason, payload)
        new = await self._writer.append(entry, about, kind="raw", reason=reason)
        if new is None:
            return self._lapsed(claim)
        check = self._check(prove.check_whole, new, about, seen.sha256)
        return Appended(claim, new.id, seen.size, new, check)

    async def _keep(self, claim: Claim, path: Path, reason: str) -> Outcome:
        """Make a large staged file a file in ``raw/``. The caller's slot has been entered.

        Raises Refused for a source, OSError, FsmountError.
        """
        if self._inputs.source(claim.ino) is not None:
            raise Refused(f"{path} is large")
        sums, sha256, size = await threads.call(Kind.STAGED, sum_up, path)
        await threads.call(Kind.FORCE, self._staging.force_by_name, claim.token)
        if not self._claims.is_current(claim):
            return self._lapsed(claim)
        # Vast sparse files have no hash.
        there = self._writer.find(sha256, size) if sha256 else None
        if there is not None:
            return Appended(claim, there, size, None)
        about = self._about(claim, sha256, size)
        listed = dump_sums(sums)
        proof = hashlib.sha256(listed).digest()
        entry = entries.kept_entry(about, reason, listed)
        kept = self._layout.kept(about.id)
        try:
            await threads.call(Kind.STAGED, large.name_again, self._disk, path, kept, sums)
            new = None
            if self._claims.is_current(claim):
                new = await self._writer.append(entry, about, kind="raw", reason=reason)
            if new is None:
                await large.remove_kept(self._disk, kept)
                return self._lapsed(claim)
        except (OSError, FsmountError):
            await large.remove_kept(self._disk, kept)
            raise
        check = self._check(prove.check_whole, new, about, proof, entries.SUMS)
        return Appended(claim, new.id, size, new, check, kept=kept)

    def _check(self, check: Callable[..., None], new: Object, *known: object) -> Callable[[], None]:
        """A function that reads an appended entry back and compares it with `known`."""
        return partial(check, self._layout.pack(new.pack), new, *known)

    def _about(self, claim: Claim, sha256: bytes, size: int) -> FileFacts:
        """What the entry says of its file, with a new object number."""
        mtime_ns = self._inputs.mtime_ns(claim.ino)
        return FileFacts(next(self._ids), self._name(claim.ino), mtime_ns, sha256, size)

    def _name(self, ino: int) -> str:
        folder, _, name = self._inputs.path(ino).rpartition(b"/")
        path = folder + b"/" * bool(folder) + final_name(name)
        return path.decode("utf-8", "surrogateescape")
