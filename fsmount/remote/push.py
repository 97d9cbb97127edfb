"""Push: send one state of a store, which may be in use, to a URL.

As a backup does, it opens the staged files first, because the encoder removes them; then SQLite
copies the index in one transaction. All that this index names is sent, then the index, and last the
state. A state is an object of the next number that is made only if there is none: of two pushers
one makes it, and the other one ends with an error. Nothing that was sent before is changed, so each
state that anybody can see is whole, and a push that was stopped goes on with what is there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fsmount.errors import (
    Damaged,
    NoSuchInode,
    NotPushed,
    PacksElsewhere,
    PushUnsettled,
    RemoteArchived,
    RemoteMissing,
)
from fsmount.folder import readable
from fsmount.remote import index_pages
from fsmount.remote.objects import (
    PACKS,
    RAW,
    STAGED,
    TAILS,
    Body,
    Part,
    State,
    folder_of,
    last_state,
    make_state,
    read_part,
)
from fsmount.remote.sending import Sender
from fsmount.remote.transport import Transport, where_of
from fsmount.store import config
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.elsewhere import Away
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index, leave_log_mode
from fsmount.store.packs.pack import parse_entry
from fsmount.store.pushed import Pushed, known_blocks, note
from fsmount.store.transfer.backup_files import held
from fsmount.store.transfer.backup_packs import Places, Vanished, opened
from fsmount.store.transfer.tree import Progress

_TRIES = 20
_REST_S = 0.25
# The largest object of a pack, and of other files. A sealed pack is one object.
PACK_PART = 128 << 20
FILE_PART = 16 << 20
# A tail of an open pack that is smaller is sent again with the next one.
SMALL_TAIL = 16 << 10
# With so many tails, the next push sends an open pack as one.
MOST_TAILS = 256


@dataclass
class PushSummary:
    """The result of a push.

    generation : number of the state that shows the store now.
    files : number of files that it shows.
    sent_objects, sent_bytes : what was sent, without the state.
    is_new : whether a state was made; else the last one shows the same.
    problems : (path, reason) for each damaged part of the store. It was sent as it is.
    """

    generation: int = 0
    files: int = 0
    sent_objects: int = 0
    sent_bytes: int = 0
    is_new: bool = False
    problems: list[tuple[str, str]] = field(default_factory=list)


def push(
    store: StoreFiles,
    remote: Transport,
    *,
    reread: bool = False,
    progress: Progress = lambda files, count: None,
    part_bytes: int = PACK_PART,
) -> PushSummary:
    """Send the state of an open store.

    `reread` reads all files of the store, also those whose size and mtime are as at the last push,
    and asks for each object whether it is there. `progress` gets files and bytes that are done. No
    new object of a pack or file has more than `part_bytes`.

    Waits for disk and network. Raises :class:`NotPushed` if another store is there,
    :class:`PacksElsewhere` if packs of the store are at another URL only, :class:`PushOvertaken`,
    :class:`PushUnsettled`, :class:`Damaged`, errors of the transport and OSError. The last
    state is whole then.
    """
    last = last_state(remote)
    if last is not None and last.uuid != store.index.identity():
        raise NotPushed(remote.url, reason="another store is there. Choose another URL")
    if store.away.packs and store.away.url.rstrip("/") != remote.url.rstrip("/"):
        raise PacksElsewhere(store.path, url=store.away.url)
    with Sender(remote, reread=reread) as sender:
        return _Push(store, remote, last, sender, reread, progress, part_bytes).run()


class _Push:
    """One run of :func:`push`."""

    def __init__(
        self,
        store: StoreFiles,
        remote: Transport,
        last: State | None,
        sender: Sender,
        reread: bool,
        progress: Progress,
        part_bytes: int,
    ) -> None:
        self._store = store
        self._sender = sender
        self._part_bytes = part_bytes
        self._remote = remote
        self._last = last
        self._reread = reread
        self._progress = progress
        self._summary = PushSummary()
        # SHA-256 of the blocks of the index that is sent.
        self._blocks: dict[int, bytes] = {}
        # What is known of each file by its path below the store: from the last state, and from
        # tries of this run.
        self._known: dict[str, Body] = {}
        if last is not None:
            for folder, files in ((PACKS, last.packs), (RAW, last.raw)):
                self._known |= {f"{folder}/{name}": body for name, body in files.items()}
        # Objects that are there or under way: those of the last state, unless they are to be asked
        # for.
        before = [] if last is None else last.parts()
        self._there = set() if reread else {part.name for part in before}
        # Objects of the last state may lie in folders of earlier prunes.
        self._before = {(part.kind, part.sha256): part for part in before}
        self._prunes = 0 if last is None else last.prunes

    def run(self) -> PushSummary:
        """Do all steps; see :func:`push`."""
        for left in reversed(range(_TRIES)):
            try:
                state = self._try()
                break
            except Vanished as error:
                if not left:
                    raise PushUnsettled(self._store.path, reason=f"{error} is gone") from error
                time.sleep(_REST_S)
        # A state names only what is there.
        self._sender.finish()
        self._summary.sent_objects = self._sender.sent_objects
        self._summary.sent_bytes = self._sender.sent_bytes
        if self._last is not None and state.shows_the_same(self._last):
            state = self._last
        else:
            make_state(self._remote, state, self._last)
            self._summary.is_new = True
        self._summary.generation = state.generation
        self._note(state)
        return self._summary

    def _note(self, state: State) -> None:
        """Note in the store what the URL has now. Without the note the next push reads more."""
        layout = self._store.layout
        packs = {int(Path(name).stem): body.length for name, body in state.packs.items()}
        seen = Pushed(self._remote.url, state.generation, state.time, state.index_sha256, packs)
        # The store may lie on a disk that can only be read.
        with suppress(OSError):
            note(layout, self._store.disk, seen, self._blocks)

    def _try(self) -> State:
        """Send all that one copy of the index names. Return the state.

        Raises :class:`Vanished` if the store removed something meanwhile.
        """
        self._summary.problems.clear()
        with tempfile.TemporaryDirectory(prefix="fsmount-push-") as scratch:
            file = Path(scratch) / "index.sqlite"
            with held(self._store) as descriptors:
                self._store.index.copy_to(file)
                _leave_out_tiles(file)
                index = Index(file, Disk(), read_only=True)
                try:
                    state = State(
                        uuid=index.identity(),
                        config=config.portable(self._store.layout.config.read_text()),
                        opened=index.opened(),
                        staged=self._send_staged(index, descriptors),
                        prunes=self._prunes,
                    )
                except BaseException:
                    index.close()
                    raise
            try:
                state.packs = self._send_packs(index)
                state.raw = self._send_kept(index)
                self._summary.files = index.totals()["files"]
            finally:
                index.close()
            self._send_index(state, file)
        return state

    def _send_index(self, state: State, file: Path) -> None:
        state.index_size = file.stat().st_size
        state.index_sha256 = index_pages.sha256_of(file)
        self._blocks = index_pages.digests_of(file)
        last = self._last
        if last is not None and not self._reread and state.index_sha256 == last.index_sha256:
            state.index = last.index
            return
        # With `reread` the objects of the last index may be the damaged ones.
        before = None if self._reread else last
        noted = None
        if before is not None:
            layout = self._store.layout
            noted = known_blocks(layout, self._remote.url, before.index_sha256)
        state.index = index_pages.send(file, before, self._remote, self._put, noted)

    def _put(self, kind: str, data: bytes) -> Part:
        """Make an object of these bytes, unless it is there: it may be under way yet."""
        part = Part.of(folder_of(kind, self._prunes), data)
        part = self._before.get((kind, part.sha256), part)
        if part.name not in self._there:
            self._sender.send(part, data)
            self._there.add(part.name)
        return part

    def _send_packs(self, index: Index) -> dict[str, Body]:
        """Send the committed bytes of all packs. Raises :class:`Vanished`, OSError."""
        places = Places(index)
        found = {}
        for number, (length, is_sealed) in index.packs().items():
            away = self._store.away.packs.get(number)
            name = self._store.layout.pack(number).name
            if away is not None:
                found[name] = self._already_there(name, away)
                self._progress(1, 0)
            elif length:
                found[name] = self._send_pack(number, length, is_sealed, places)
                self._progress(1, 0)
        return found

    def _already_there(self, name: str, away: Away) -> Body:
        """A pack that is at the URL only, as the last state names it.

        With `reread` its objects are read, and damage of them is noted. Raises :class:`Damaged` if
        the last state lacks it: then a prune may have removed it.
        """
        body = None if self._last is None else self._last.packs.get(name)
        if body is None or [(p.sha256, p.length) for p in body.parts] != [
            (sha256, length) for _, sha256, length in away.parts
        ]:
            why = "the newest state lacks it, and it is not in the store here: see fsmount evict"
            raise Damaged(where_of(self._remote, f"{PACKS}/{name}"), reason=why)
        for part in body.parts if self._reread else ():
            try:
                read_part(self._remote, part)
            except (Damaged, RemoteMissing) as error:
                reason = str(error.fields.get("reason", "it is missing"))
                what = f"{reason}, and {name} is not in the store here"
                self._summary.problems.append((str(error.detail), what))
            except RemoteArchived:
                pass
            self._there.add(part.name)
        return body

    def _send_pack(self, number: int, length: int, is_sealed: bool, places: Places) -> Body:
        path = self._store.layout.pack(number)
        known = self._known.get(f"{PACKS}/{path.name}")
        try:
            with opened(path) as source:
                info = os.fstat(source)
                end = info.st_size if is_sealed else length
                if info.st_size < length:
                    raise Vanished(path.name)
                if known is not None and self._is_as_sent(known, info) and known.length == end:
                    self._progress(0, end)
                    return known
                parts = [] if is_sealed or known is None else self._same_tails(known, source, end)
                start = sum(part.length for part in parts)
                most = min(PACK_PART, self._part_bytes)
                for at in range(start, end, most):
                    data = self._read(source, at, min(most, end - at), path.name)
                    self._verify(number, at, data, places.of(number, at))
                    parts.append(self._put(PACKS if is_sealed else TAILS, data))
        except FileNotFoundError as error:
            raise Vanished(path.name) from error
        body = Body(info.st_size, info.st_mtime_ns, parts)
        self._known[f"{PACKS}/{path.name}"] = body
        return body

    def _is_as_sent(self, known: Body, info: os.stat_result) -> bool:
        """Whether a file has the size and mtime that it had when it was sent (as rsync asks)."""
        same = (known.size, known.mtime_ns) == (info.st_size, info.st_mtime_ns)
        return same and all(part.name in self._there for part in known.parts)

    def _same_tails(self, known: Body, source: int, end: int) -> list[Part]:
        """The parts of an open pack that it still begins with, without a small one at the end."""
        same: list[Part] = []
        at = 0
        for part in known.parts:
            if (
                at + part.length > end
                or Part.of(part.folder, pread(source, part.length, at)) != part
            ):
                break
            same.append(part)
            at += part.length
        if same and at < end and same[-1].length < SMALL_TAIL:
            same.pop()
        there = all(part.name in self._there for part in same)
        return same if there and len(same) < MOST_TAILS else []

    def _read(self, source: int, at: int, length: int, name: str) -> bytes:
        data = pread(source, length, at)
        if len(data) < length:
            raise Vanished(name)
        self._progress(0, length)
        return data

    def _verify(
        self, number: int, start: int, data: bytes, entries: Iterable[tuple[int, int, int]]
    ) -> None:
        """Compare the checksums of all entries that lie in a run of a pack: what is sent is whole.

        Notes damage of the store. Raises :class:`Vanished` if the store has moved an entry.
        """
        pack = self._store.layout.pack(number)
        for place in entries:
            at, length = place[1] - start, place[2]
            if at < 0 or at + length > len(data) or _is_whole(data[at : at + length], place[0]):
                continue
            now = self._store.index.known_object(place[0])
            if now is None or (now.pack, now.offset, now.length) != (number, *place[1:]):
                raise Vanished(pack.name)
            what = f"object {place[0]} is damaged: fsmount check --repair may rebuild it"
            self._summary.problems.append((readable(str(pack)), what))

    def _send_staged(self, index: Index, descriptors: Mapping[int, int]) -> dict[str, Body]:
        """Send the staged files that `index` names. Raises :class:`Vanished`, OSError."""
        found = {}
        for node in index.staged_inodes():
            assert node.staged is not None
            name = str(node.staged)
            try:
                if node.staged in descriptors:
                    found[name] = self._send_file(descriptors[node.staged], STAGED, name)
                else:
                    with opened(self._store.staging.path(node.staged)) as source:
                        found[name] = self._send_file(source, STAGED, name)
            except FileNotFoundError as error:
                if not self._is_staged(node.ino, node.staged):
                    raise Vanished(f"staging/{name}") from error
                what = readable(str(self._store.staging.path(node.staged)))
                self._summary.problems.append((what, "the staged file is missing"))
        return found

    def _is_staged(self, ino: int, token: int) -> bool:
        """Whether the index of the store still names a staged file."""
        try:
            return self._store.index.inode(ino).staged == token
        except NoSuchInode:
            return False

    def _send_kept(self, index: Index) -> dict[str, Body]:
        """Send large files. Raises :class:`Vanished`, OSError."""
        found = {}
        for number, sha256 in index.kept():
            path = self._store.layout.kept(number)
            known = self._known.get(f"{RAW}/{path.name}")
            try:
                with opened(path) as source:
                    if known is not None and self._is_as_sent(known, os.fstat(source)):
                        found[path.name] = known
                        self._progress(1, known.length)
                        continue
                    digest = hashlib.sha256()
                    body = self._send_file(source, RAW, path.name, digest.update)
            except FileNotFoundError as error:
                if self._store.index.known_object(number) is None:
                    raise Vanished(f"raw/{path.name}") from error
                self._summary.problems.append((readable(str(path)), "the file is missing"))
                continue
            if digest.digest() != sha256:
                if self._store.index.known_object(number) is None:
                    raise Vanished(f"raw/{path.name}")
                self._summary.problems.append((readable(str(path)), "it has another hash"))
            found[path.name] = self._known[f"{RAW}/{path.name}"] = body
        return found

    def _send_file(
        self,
        source: int,
        folder: str,
        name: str,
        seen: Callable[[bytes], None] = lambda data: None,
    ) -> Body:
        """Send an open file as it is now. `seen` gets its bytes. Raises OSError."""
        info = os.fstat(source)
        parts = []
        most = min(FILE_PART, self._part_bytes)
        for at in range(0, info.st_size, most):
            data = self._read(source, at, min(most, info.st_size - at), f"{folder}/{name}")
            seen(data)
            parts.append(self._put(folder, data))
        self._progress(1, 0)
        return Body(info.st_size, info.st_mtime_ns, parts)


def _leave_out_tiles(file: Path) -> None:
    """Remove the memory of the search for tiles from a copy of an index.

    It may have 700 KB, changes with each picture, and is hard to compress. Without it, the first
    new frame in a store that was pulled is coded as a whole. Raises :class:`Damaged`, OSError.
    """
    index = Index(file, Disk())
    try:
        index.forget_tiles()
    finally:
        index.close()
    leave_log_mode(file)


def _is_whole(data: bytes, object_id: int) -> bool:
    """Whether these bytes are the entry of an object, with right checksums."""
    try:
        entry, end = parse_entry(data)
    except Damaged:
        return False
    return end == len(data) and entry.object_id == object_id
