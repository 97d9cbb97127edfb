"""Wrong values in encoding: one value on the way from a staged file to the pack is wrong.

A *site* is a function on that way: its result, or one of its arguments. A fault changes the value
at one site, either once or from then on always. It flips a bit, replaces a byte, cuts off the end,
or gives the value that the same site had for another file.

The harness encodes a few files of every kind with the fault, into a store that has some files
already. Another process must then read every file byte for byte. It reads from the pack, or from
the staged copy, which the store must not have removed before. Opened again without the fault, the
store must encode all files.

``python -m tests.crash.lies [--faults N] [--first SEED] [--jobs N]``
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import trio

from fsmount.codec.deflate import engine
from fsmount.codec.delta import delta, payload, record
from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs, reader
from fsmount.store.frames.pending import PendingObject
from fsmount.store.frames.planner import Planner
from fsmount.store.index import ROOT
from fsmount.store.ingest import dictionaries as ingest_dictionaries
from fsmount.store.ingest import frames as ingest_frames
from fsmount.store.ingest import retries
from fsmount.store.ingest.committer import Committer
from fsmount.store.ingest.retries import Retries
from fsmount.store.packs import entries, pack
from fsmount.store.packs.pack import Pack
from fsmount.store.store import open_read_store, open_store
from tests.crash.command import options
from tests.crash.limits import small_limits
from tests.crash.planted import caught, plant
from tests.crash.points import quiet
from tests.crash.scratch import fast
from tests.crash.verdict import Entries, Rendering, whole
from tests.support import photos, pngs
from tests.support.encoding import forget_caches, put
from tests.support.frames import png, screens, scrolled

# The sites: owner and name of a function, and the index of the argument (None: the result).
SITES: dict[str, tuple[Any, str, int | None]] = {
    "parameters found": (engine, "identify", None),
    "corrections": (engine, "correct", None),
    "answer of look": (jobs, "look", None),
    "plan": (Planner, "plan", None),
    "plan with moves": (jobs, "find_moves", None),
    "plan noted": (Planner, "note", None),
    "layer of a pending object": (PendingObject, "layer", None),
    "record of a pending anchor": (PendingObject, "record", None),
    "relations": (ingest_frames, "relations", None),
    "own tiles": (delta, "own_tiles", None),
    "payload": (payload, "encode", None),
    "content of a dictionary": (reader, "dictionary_content", None),
    "answer of make_dictionary": (ingest_dictionaries, "make_dictionary", None),
    "dictionary's entry": (entries, "dictionary_entry", None),
    "layout": (jobs, "_coded", None),
    "recipe": (jobs, "picture_record", 2),
    "facts of a picture": (jobs, "picture_record", 0),
    "record of a picture": (jobs, "picture_record", None),
    "record": (record, "pack", None),
    "entry built": (jobs, "build_entry", None),
    "answer of encode": (jobs, "encode", None),
    "answer of transcode": (jobs, "transcode", None),
    "raw entry": (entries, "raw_entry", None),
    "JPEG entry": (entries, "jpeg_entry", None),
    "large file's entry": (entries, "kept_entry", None),
    "entry appended": (pack, "build_entry", None),
    "place": (Pack, "count", None),
    "bytes written": (Disk, "pwrite", 2),  # of entries
}


def false(value: Any, chance: random.Random) -> Any:
    """A different value of the same type, if the type has one. Does not change `value` itself."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1 << chance.randrange(12)
    if isinstance(value, str):
        return false(value.encode(), chance).decode("latin-1")
    if isinstance(value, bytes):
        return _false_bytes(value, chance)
    if isinstance(value, np.ndarray):
        flat = value.copy().reshape(-1).view(np.uint8)
        if flat.size:
            flat[chance.randrange(flat.size)] ^= 1 << chance.randrange(8)
        return flat.view(value.dtype).reshape(value.shape)
    if isinstance(value, (tuple, list)) and value:
        parts = list(value)
        at = chance.randrange(len(parts))
        parts[at] = false(parts[at], chance)
        if hasattr(value, "_make"):
            return value._make(parts)
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict) and value:
        key = chance.choice(sorted(value))
        return value | {key: false(value[key], chance)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = chance.choice([field.name for field in dataclasses.fields(value)])
        return dataclasses.replace(value, **{name: false(getattr(value, name), chance)})
    return value


def _false_bytes(value: bytes, chance: random.Random) -> bytes:
    if not value:
        return b"\1"
    kind, at = chance.randrange(4), chance.randrange(len(value))
    if kind == 0:
        return value[:at]
    changed = bytearray(value)
    changed[at] = changed[at] ^ 1 << chance.randrange(8) if kind < 3 else chance.randrange(256)
    return bytes(changed)


class Liar:
    """Falsifies value number `at` of one site, with `forever` also all later ones. `at` 0: none."""

    def __init__(self, site: str, at: int, forever: bool, chance: random.Random) -> None:
        self.owner, self.name, self._place = SITES[site]
        self._real = getattr(self.owner, self.name)
        self._at = at
        self._forever = forever
        self._chance = chance
        self._others: list[Any] = []
        self.calls = 0
        self.lied = False

    @contextmanager
    def lying(self) -> Iterator[None]:
        """Patch the site for the duration of the block."""

        def call(*given: Any, **named: Any) -> Any:
            if self._place is None:
                return self._told(self._real(*given, **named))
            values = list(given)
            values[self._place] = self._told(values[self._place])
            return self._real(*values, **named)

        with mock.patch.object(self.owner, self.name, call):
            yield

    def _told(self, value: Any) -> Any:
        if value is None or (self.name == "pwrite" and value[:4] != b"PK\3\4"):
            return value
        self.calls += 1
        due = self._at and (self.calls >= self._at if self._forever else self.calls == self._at)
        others = [other for other in self._others if type(other) is type(value)]
        self._others = [*self._others[-8:], value]
        if not due:
            return value
        self.lied = True
        if others and self._chance.random() < 0.25:
            return self._chance.choice(others)
        return false(value, self._chance)


# -- the files


@cache
def before() -> dict[bytes, bytes]:
    """The files that the store has before the fault."""
    files = {b"%02d.png" % i: png(frame) for i, frame in enumerate(_frames()[:4])}
    return files | {b"note": b"not a picture" * 9}


@cache
def after() -> dict[bytes, bytes]:
    """The files that the store encodes with the fault."""
    chance = random.Random(5)
    rows = pngs.make_rows(chance, 40, 40, 2, 8, "bars")
    plan = pngs.Plan(40, 40, rows, b"\4" * 40, 2, 8)
    files = {b"%02d.png" % (i + 50): png(frame) for i, frame in enumerate(_frames()[4:])}
    files[b"90.png"] = png(_frames()[2], level=9)
    files[b"91.png"] = pngs.DAMAGES["flushed"](plan, chance)
    files[b"92.png"] = pngs.build(dataclasses.replace(plan, head=pngs.chunk(b"tEXt", b"a\0b")))
    files[b"93.png"] = files[b"92.png"][:-9]
    files[b"94.png"] = before()[b"01.png"]
    files[b"95"] = b"not a picture either" * 9
    files[b"96"] = chance.randbytes(25_000)
    files[b"97.jpg"] = photos.jpeg(photos.scene(1, 96, 64))
    return files


def _frames() -> list[Any]:
    faint = [frame.astype(np.uint16) * 257 for frame in screens(2, height=40, width=40)]
    return [*screens(6, height=48, width=64), *scrolled(2, 160, 240), *faint]


@cache
def base() -> Path:
    """A store with the files of :func:`before`."""
    root = Path(tempfile.mkdtemp()) / "store"
    config.make(root, Disk())
    trio.run(_fill, root, before())
    return root


async def _fill(root: Path, files: dict[bytes, bytes]) -> None:
    forget_caches()
    opened = open_store(root)
    try:
        async with opened.running(count=1) as store:
            for name, data in files.items():
                put(store, name, data)
            with trio.move_on_after(120) as late:
                await store.drain()
            if late.cancelled_caught:
                raise TimeoutError("not everything was encoded, or given up")
    finally:
        opened.close()


# -- the verdict


def bodies(root: Path, rendering: Rendering) -> tuple[str, dict[bytes, str]]:
    """Read all files as another process does; returns (failure text or "", kind of each file)."""
    store = open_read_store(root)
    kinds: dict[bytes, str] = {}
    try:
        entries = Entries(store)
        for name, data in {**before(), **after()}.items():
            node = store.index.lookup(ROOT, name)
            if node is None:
                return f"{name!r} has no name", kinds
            if node.object_id is None:
                kinds[name] = "staged"
            else:
                kinds[name] = store.index.object(node.object_id).kind
            try:
                found = rendering.file(store, node, entries)
            except (FsmountError, OSError) as error:
                return f"{name!r} is lost: {error}", kinds
            if found != data:
                return f"{name!r} has wrong bytes", kinds
    finally:
        store.close()
    return "", kinds


def one(site: str, at: int, forever: bool, seed: int) -> tuple[str, str, int]:
    """Run one fault; returns (failure text or "", outcome of the fault, calls of the site)."""
    liar = Liar(site, at, forever, random.Random(seed))
    tried: list[int] = []
    failed, give_up = Retries.failed, Committer._give_up

    def note(self: Retries, ino: int, error: Exception) -> None:
        tried.append(ino)
        failed(self, ino, error)

    async def note_all(self: Committer, batch: list[Any]) -> None:
        tried.extend(done.claim.ino for done in batch)
        await give_up(self, batch)

    rendering = Rendering()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "store"
        shutil.copytree(base(), root)
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(Retries, "failed", note))
            stack.enter_context(mock.patch.object(Committer, "_give_up", note_all))
            stack.enter_context(liar.lying())
            try:
                trio.run(_fill, root, after())
            except Exception as error:
                return f"raised {error!r}", "", liar.calls
        wrong, kinds = bodies(root, rendering)
        if wrong:
            return wrong, "", liar.calls
        trio.run(_fill, root, {})
        wrong, finally_ = bodies(root, rendering)
        if not wrong and "staged" in finally_.values():
            wrong = "a file was never encoded"
        if not wrong:
            store = open_store(root)
            try:
                wrong = whole(store, rendering)
            finally:
                store.close()
        return wrong, _outcome(kinds, bool(tried), liar.lied), liar.calls


def _outcome(kinds: dict[bytes, str], tried_again: bool, lied: bool) -> str:
    if not lied:
        return "not reached"
    if "staged" in kinds.values():
        return "stays staged"
    if Counter(kinds.values())["raw"] > _RAW:
        return "kept raw"
    return "tried again" if tried_again else "harmless"


# Number of files that are raw without a fault: two notes, a cut picture, a large file.
_RAW = 4


def some(faults: list[tuple[str, int, bool, int]]) -> list[tuple[str, str, str]]:
    """Run faults; returns (site, failure text or "", outcome) of each."""
    _prepare()
    out = []
    for site, at, forever, seed in faults:
        wrong, outcome, _ = one(site, at, forever, seed)
        out.append((site, wrong and f"value {at}, seed {seed}: {wrong}", outcome))
        if caught(wrong):
            break
    return out


def calls(site: str) -> int:
    """Number of values that a site gives in a run without a fault."""
    _prepare()
    wrong, _, count = one(site, 0, False, 0)
    assert not wrong, wrong
    return count


def _begin(bug: str, scratch: str) -> None:
    """Prepare a pool process; its temporary files are removed together with `scratch`."""
    plant(bug)
    tempfile.tempdir = scratch


def _prepare() -> None:
    quiet()
    small_limits()
    # A file that always fails makes the store give up the files under way with it. These files need
    # time between its tries.
    retries._RETRY_SECONDS = 0.05


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.first)
    with (
        tempfile.TemporaryDirectory(dir=fast()) as scratch,
        get_context("spawn").Pool(given.jobs, _begin, (given.plant, scratch)) as pool,
    ):
        counts = dict(zip(SITES, pool.map(calls, SITES), strict=True))
        faults = []
        for number in range(given.faults):
            site = list(SITES)[number % len(SITES)]
            at = chance.randint(1, counts[site])
            faults.append((site, at, chance.random() < 0.2, chance.randrange(1 << 32)))
        shares = [faults[i :: given.jobs * 8] for i in range(given.jobs * 8)]
        results = [one for many in pool.imap_unordered(some, shares) for one in many]
    return _print(results)


def _print(results: list[tuple[str, str, str]]) -> int:
    wrong = [(site, why) for site, why, _ in results if why]
    for site, why in wrong[:20]:
        print(f"{site}: {why}")
    columns = ("harmless", "tried again", "kept raw", "stays staged", "not reached")
    for site in SITES:
        table = Counter(outcome for where, why, outcome in results if where == site and not why)
        told = ", ".join(f"{table[column]} {column}" for column in columns if table[column])
        bad = sum(where == site for where, _ in wrong)
        print(f"{site}: {told or 'none'}" + f"; {bad} FAILED" * bool(bad))
    print(f"{len(results)} lies, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
