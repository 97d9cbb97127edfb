"""Bugs planted on purpose, which the harnesses must catch.

The kinds: a forgotten fsync (of a file, of a folder), two swapped steps, a skipped check, a
swallowed error. `--plant` selects one bug. `tests/crash/test_harness.py` shows that a harness
catches each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsmount.errors import RemoteFailed
from fsmount.folder import Folder
from fsmount.remote import fetching, index_pages, objects, pull
from fsmount.remote.objects import Part
from fsmount.remote.sending import Sender
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import needed_tiles
from fsmount.store.index import Index
from fsmount.store.index.database import Database
from fsmount.store.ingest.committer import Committer
from fsmount.store.maintenance import copies, reclaim
from fsmount.store.maintenance.parity_keeper import ParityKeeper
from fsmount.store.maintenance.reclaim import Shrinker
from fsmount.store.maintenance.repack import Repacker
from fsmount.store.ownership import Ownership
from fsmount.store.packs import parity_trust
from fsmount.store.packs.bodies import SEGMENT_BYTES, KeptBody
from fsmount.store.packs.mover import Mover
from fsmount.store.packs.pack import Pack
from fsmount.store.packs.parity import Parity, Shape
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.store.recovery import startup
from fsmount.store.recovery.startup import _Cleaner
from tests.crash.traffic import WatchedDisk


def _no_pack_fsync() -> None:
    _set(Pack, "fsync", lambda self: None)


def _no_index_fsync() -> None:
    def force(self: Index) -> None:
        self.dirty = False

    _set(Index, "_force", force)


def _no_staged_fsync() -> None:
    _set(Staging, "force", lambda self, token, fd: None)


def _failed_fsync_believed() -> None:
    _set(Staging, "_note_failure", lambda self, tokens, error: None)


def _log_not_written_again() -> None:
    _set(Disk, "write_again", lambda self, fd: None)


def _no_staging_folder_fsync() -> None:
    _set(Staging, "fsync_folder", lambda self: None)


def _no_packs_folder_fsync() -> None:
    real = WatchedDisk.fsync_folder

    def fsync_folder(self: WatchedDisk, path: Path) -> None:
        if path.name != "packs":
            real(self, path)

    _set(WatchedDisk, "fsync_folder", fsync_folder)


def _index_before_packs() -> None:
    real = Writer.commit

    async def commit(self: Writer, rows: Callable[[], None]) -> None:
        packs, late = self._packs(), []
        for pack in packs:
            _set(pack, "fsync", lambda pack=pack: late.append(pack))
        await real(self, rows)
        self._index.force()
        for pack in late:
            if pack in self._packs():
                Pack.fsync(pack)

    _set(Writer, "commit", commit)


def _staged_file_first() -> None:
    real = Committer._commit

    async def commit(self: Committer, batch: list[Any]) -> None:
        for done in batch:
            self._writer._staging.remove(done.claim.token)
        await real(self, batch)

    _set(Committer, "_commit", commit)


def _old_pack_first() -> None:
    real = Repacker._turn

    def turn(self: Repacker, moved: list[Any], emptied: list[int]) -> None:
        real(self, moved, emptied)
        for number in emptied:
            self._files.disk.unlink(self._files.layout.pack(number))

    _set(Repacker, "_turn", turn)


def _cut_first() -> None:
    shrink, real = Shrinker._move, Mover.relocate

    async def move(self: Shrinker, number: int, batch: Any, end: int) -> None:
        async def early(mover: Mover, batch: Any, entries: Any, rows: Any) -> Any:
            def turn(moved: Any) -> None:
                rows(moved)
                reclaim._cut(self._disk, self._layout.pack(number), end)

            return await real(mover, batch, entries, turn)

        _set(Mover, "relocate", early)
        await shrink(self, number, batch, end)

    _set(Shrinker, "_move", move)


def _no_cut() -> None:
    real = Pack._cut_back

    def cut_back(self: Pack) -> Any:
        cut, self._disk = self._disk, _Uncut()
        try:
            return real(self)
        finally:
            self._disk = cut

    _set(Pack, "_cut_back", cut_back)


class _Uncut(WatchedDisk):
    def __init__(self) -> None:
        return

    def ftruncate(self, fd: int, size: int) -> None:
        return


def _no_segment_sums() -> None:
    def segment(self: KeptBody, number: int) -> bytes:
        with self._path.open("rb") as file:
            return os.pread(file.fileno(), SEGMENT_BYTES, number * SEGMENT_BYTES)

    _set(KeptBody, "_segment", segment)


def _swallowed_error() -> None:
    real = WatchedDisk.pwrite

    def pwrite(self: WatchedDisk, fd: int, data: bytes | memoryview, offset: int) -> int:
        try:
            return real(self, fd, data, offset)
        except OSError:
            return len(data)

    _set(WatchedDisk, "pwrite", pwrite)


def _no_read_back() -> None:
    async def nothing(self: Committer, batch: object) -> None:
        return

    _set(Committer, "_read_back", nothing)


def _rows_of_any_kind() -> None:
    _set(Database, "_check", lambda self, rows, of: None)
    _set(Database, "_ascending", lambda self, rows, after: rows)


def _copy_not_compared() -> None:
    _set(copies, "disagreement", lambda layout, index: "")


def _nobody_asks() -> None:
    _set(Ownership, "ask", lambda self: None)


def _asked_only_before() -> None:
    real = Database.transaction

    @contextmanager
    def transaction(self: Database, *, deletes: bool = False) -> Iterator[None]:
        outermost, asked = not self._depth, self.owned
        with suppress(_Late), real(self, deletes=deletes):
            yield
            if outermost:
                _set(self, "owned", _late)
        _set(self, "owned", asked)

    _set(Database, "transaction", transaction)


class _Late(Exception):
    """Raised in place of the second ownership check of a transaction."""


def _late() -> None:
    raise _Late


def _unknown_staged_removed() -> None:
    _set(_Cleaner, "set_aside", lambda self, path: self._disk.unlink(path))


def _lost_log_folded() -> None:
    def close(self: Database) -> None:
        self._db.close()

    _set(Database, "close", close)


def _packs_listed_before_the_lock() -> None:
    async def seal(self: Writer) -> None:
        if self._pack is not None and self._pack.length:
            self._full_packs.append(self._pack)
            self._pack = None
        full = list(self._full_packs)
        if full:
            async with self.packs.turn:
                await self._commit({pack: pack.length for pack in full}, full, lambda: None)

    async def commit(self: Writer, rows: Callable[[], None]) -> None:
        full = list(self._full_packs)
        lengths = {pack: pack.length for pack in self._packs()}
        async with self.packs.turn:
            await self._commit(lengths, full, rows)

    _set(Writer, "seal", seal)
    _set(Writer, "commit", commit)


def _by_name() -> None:
    real = Folder.__init__

    def init(self: Folder, path: Path) -> None:
        real(self, path)
        self.path = path.absolute()

    _set(Folder, "__init__", init)


def _parity_not_forced() -> None:
    def write(self: ParityKeeper, shape: Shape, data: bytes | None) -> None:
        if data is None:
            return
        path = self._layout.parity(shape.number)
        scratch = path.with_name(path.name + ".new")
        self._disk.unlink(scratch)
        fd = self._disk.create(scratch)
        self._disk.pwrite(fd, data, 0)
        self._disk.close(fd)
        self._disk.rename(scratch, path)
        self._disk.fsync_folder(path.parent)
        self._known[shape.number] = shape

    _set(ParityKeeper, "_write", write)


def _old_parity_stays() -> None:
    _set(startup, "_remove_old_parity", lambda layout, index, disk: None)


def _older_parity_believed() -> None:
    _set(parity_trust, "_is_older", lambda pack, fd, known, rebuilt: False)


def _blocks_not_compared() -> None:
    _set(Parity, "_checked", lambda self, block, data: data)


def _nothing_rebuilt() -> None:
    _set(Parity, "rebuild", lambda self, fd, blocks: {})


def _needed_tiles_dropped() -> None:
    _set(needed_tiles, "_mark", lambda mask, copy, tiles: None)


def _trimmed_as_if_whole() -> None:
    _set(Index, "trim_objects", lambda self, ids: None)


def _trash_forgotten() -> None:
    def put(self: Index, names: Iterable[tuple[int, bytes, bytes]], now_ns: int) -> None:
        for folder, name, _ in names:
            node = self.unlink(folder, name, now_ns)
            if node.nlink == 0:
                self.purge(node.ino)

    _set(Index, "put_in_trash", put)


def _remote_not_compared() -> None:
    for module in (objects, index_pages, pull, fetching):
        _set(module, "read_part", lambda remote, part: remote.get(part.name))


def _failed_put_believed() -> None:
    original = Sender._send

    def send(self: Sender, part: Part, data: bytes) -> bool:
        with suppress(RemoteFailed):
            return original(self, part, data)
        return True

    _set(Sender, "_send", send)


def _set(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)


# Name -> the function that plants the bug, and the harness that must catch it.
BUGS: dict[str, tuple[Callable[[], None], str]] = {
    "no-pack-fsync": (_no_pack_fsync, "power"),
    "no-index-fsync": (_no_index_fsync, "power"),
    "no-staged-fsync": (_no_staged_fsync, "power"),
    "failed-fsync-believed": (_failed_fsync_believed, "power"),
    "log-not-written-again": (_log_not_written_again, "power"),
    "no-staging-folder-fsync": (_no_staging_folder_fsync, "power"),
    "no-packs-folder-fsync": (_no_packs_folder_fsync, "power"),
    "index-before-packs": (_index_before_packs, "power"),
    "staged-file-first": (_staged_file_first, "points"),
    "old-pack-first": (_old_pack_first, "power"),
    "cut-first": (_cut_first, "power"),
    "no-cut": (_no_cut, "points"),
    "no-segment-sums": (_no_segment_sums, "rot"),
    "rows-of-any-kind": (_rows_of_any_kind, "rot"),
    "copy-not-compared": (_copy_not_compared, "rot"),
    "packs-listed-before-the-lock": (_packs_listed_before_the_lock, "points"),
    "swallowed-error": (_swallowed_error, "errors"),
    "by-name": (_by_name, "points"),
    "no-read-back": (_no_read_back, "lies"),
    "nobody-asks": (_nobody_asks, "takeover"),
    "asked-only-before": (_asked_only_before, "takeover"),
    "unknown-staged-removed": (_unknown_staged_removed, "takeover"),
    "lost-log-folded": (_lost_log_folded, "takeover"),
    "parity-not-forced": (_parity_not_forced, "power"),
    "old-parity-stays": (_old_parity_stays, "points"),
    "older-parity-believed": (_older_parity_believed, "repairs"),
    "blocks-not-compared": (_blocks_not_compared, "rot"),
    "nothing-rebuilt": (_nothing_rebuilt, "stretches"),
    "needed-tiles-dropped": (_needed_tiles_dropped, "prunes"),
    "trimmed-as-if-whole": (_trimmed_as_if_whole, "prunes"),
    "trash-forgotten": (_trash_forgotten, "prunes"),
    "remote-not-compared": (_remote_not_compared, "remote"),
    "failed-put-believed": (_failed_put_believed, "remote"),
}


_PLANTED: set[str] = set()


def plant(name: str) -> None:
    """Plant a bug in this process. No-op if `name` is empty."""
    if name:
        BUGS[name][0]()
        _PLANTED.add(name)


def collected(shares: Iterable[list[str]], planted: str) -> list[str]:
    """The failure texts of all shares of the work; of a planted bug, up to the first failure."""
    wrong: list[str] = []
    for lines in shares:
        wrong += lines
        if wrong and planted:
            break
    return wrong


def caught(wrong: object) -> bool:
    """Whether a planted bug has caused a failure. This process then needs no further cases."""
    return bool(wrong and _PLANTED)
