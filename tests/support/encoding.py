"""Encoding in tests: a line of frames without a store, and a store without worker processes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import pytest
import trio

from fsmount.codec.memory import of_worker
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.frames import jobs
from fsmount.store.frames.jobs import Encoded, EncodeOrder
from fsmount.store.frames.layers import Done, Key, Loan, SharedLayer
from fsmount.store.frames.planner import Plan, Planner
from fsmount.store.frames.relations import Below, Relations, relations
from fsmount.store.index import ROOT
from fsmount.store.maintenance.copier import Copier
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Pack
from fsmount.store.read_store import ReadStore
from fsmount.store.store import OpenedReadStore, OpenedStore, open_read_store, open_store
from fsmount.store.writable_store import WritableStore
from tests.support.frames import FlakyDisk, png, screens
from tests.support.packs import unzipped

T = TypeVar("T")
BUDGET = 32 << 20
NOTE = b"not a picture"


def forget_caches() -> None:
    """Empty the caches, as in a process that has just started."""
    of_worker.cache_clear()


class Line:
    """Objects one after another; each is planned with all earlier ones."""

    def __init__(self, folder: Path) -> None:
        # Caches name a pack by its path. An earlier line may have had the same.
        forget_caches()
        self.planner = Planner()
        self.pack = Pack(folder / "00000001.zip", 1, Disk(), 0)
        self.places: dict[int, Location] = {}
        self.encoded: dict[int, Encoded] = {}
        self.rows: dict[int, Relations] = {}
        self.plans: dict[int, Plan] = {}
        self.files: dict[int, bytes] = {}
        self.scratch = folder / "staged"
        # What the jobs so far have decoded.
        self.layers: dict[Key, SharedLayer] = {}

    def forget(self) -> None:
        """Empty all caches."""
        forget_caches()
        self.layers.clear()

    def loan(self, places: Sequence[Location]) -> Loan:
        """What a job gets that needs the objects at `places`."""
        keys = ((place.pack, place.id) for place in places)
        return Loan(BUDGET, tuple(self.layers[key] for key in keys if key in self.layers))

    def took(self, done: Done[T]) -> T:
        """Keep the layers that a job has made. Returns its result."""
        self.layers |= {layer.key: layer for layer in done.made}
        return done.result

    def look(self, data: bytes) -> jobs.Look:
        self.scratch.write_bytes(data)
        return jobs.look(str(self.scratch), (), BUDGET)

    def order(self, data: bytes, plan: Plan | None = None) -> tuple[EncodeOrder, jobs.Look]:
        """The order to encode a file, planned after all files before, or by `plan`."""
        seen = self.look(data)
        assert seen.picture is not None, seen.reason
        assert seen.features is not None
        number = len(self.places) + 1
        about = FileFacts(number, f"desk/{number}.png", number, seen.sha256, len(data))
        if plan is None:
            plan = self.planner.plan(seen.features)
            if plan.near:
                order = EncodeOrder(about, seen.picture, plan, self.wanted(plan))
                plan = self.took(jobs.find_moves(order, self.loan(order.places)))
        return EncodeOrder(about, seen.picture, plan, self.wanted(plan)), seen

    def wanted(self, plan: Plan) -> tuple[Location, ...]:
        """The places of the objects that a plan names, and of those that their layers rest on."""
        ids = plan.objects()
        ids |= {below for i in ids for below in self.rows[i].layer}
        return tuple(self.places[i] for i in sorted(ids))

    def add(self, data: bytes, plan: Plan | None = None) -> Encoded:
        order, seen = self.order(data, plan)
        assert seen.features is not None
        planned = self.planner.note(seen.features, order.plan, order.about.id)
        order = replace(order, plan=planned)
        encoded = self.took(jobs.encode(order, self.loan(order.places)))
        self.append(order, encoded)
        self.files[order.about.id] = data
        self.planner.coded(seen.features, order.plan, encoded.layout, order.about.id)
        return encoded

    def append(self, order: EncodeOrder, encoded: Encoded) -> None:
        """Append what an order has become, and note its row."""
        number = order.about.id
        self.places[number] = Location(
            number, str(self.pack.path), *self.pack.append(encoded.entry)
        )
        self.encoded[number] = encoded
        self.plans[number] = order.plan
        levels = encoded.proof.levels
        below = {i: Below(self.rows[i].layer, level) for i, level in levels}
        self.rows[number] = relations(encoded.proof.references, below)

    def render(self, number: int) -> bytes:
        needs = [self.places[known] for known in self.rows[number].needs]
        sha256 = hashlib.sha256(self.files[number]).digest()
        return self.took(jobs.render(self.places[number], needs, sha256, self.loan(needs)))

    def check(self) -> None:
        """Check that each file renders from the objects in `needs`, with cold and warm caches."""
        for number, data in self.files.items():
            self.forget()
            assert self.render(number) == data
        for number, data in reversed(self.files.items()):
            assert self.render(number) == data
            assert self.render(number) == data


async def _at_once(_: Callable[..., Any]) -> None:
    return


class Inline:
    """Takes the place of Workers: jobs run in this process.

    `before` is awaited before each job, so it can delay the job. `args` holds the arguments of the
    latest job; it is set before `before` is called.
    """

    args: ClassVar[tuple[Any, ...]] = ()
    before: ClassVar[Callable[[Callable[..., Any]], Awaitable[None]]] = _at_once

    def __init__(self, count: int, *, preload: Sequence[str] = (), **_: float) -> None:
        self.count = self.limit = count

    async def __aenter__(self) -> Self:
        # Workers are new processes. Their caches identify a pack by a path with a descriptor
        # number. An earlier store in this process may have used the same number.
        forget_caches()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    async def warm(self, count: int | None = None) -> None:
        """Start nothing."""

    async def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        urgent: bool = False,
        priority: int = 0,
        order: int = 0,
        series: int | None = None,
    ) -> Any:
        await trio.lowlevel.checkpoint()
        type(self).args = args
        await type(self).before(function)
        return function(*args)


class Gate:
    """Holds the jobs of a function from now on, until the test opens it.

    `args` are the arguments of the first job that it holds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
        self.reached = trio.Event()
        self.open = trio.Event()
        self.args: tuple[Any, ...] = ()

        async def before(asked: Callable[..., Any]) -> None:
            if asked is function:
                self.args = self.args or Inline.args
                self.reached.set()
                await self.open.wait()

        monkeypatch.setattr(Inline, "before", staticmethod(before))


def open_either(root: Path, *, read_only: bool) -> OpenedReadStore | OpenedStore:
    """Open a store for reading, or for reading and writing."""
    return open_read_store(root) if read_only else open_store(root)


def put(store: StoreFiles, name: bytes, data: bytes, folder: int = ROOT) -> int:
    """Write and close a file as the mount does. Returns its inode number.

    If the store is only opened, the next writer encodes the file.
    """
    token = store.staging.create()
    store.staging.path(token).write_bytes(data)
    inode = store.index.create(
        folder, name, mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=len(data)
    )
    if isinstance(store, WritableStore):
        store.queue(inode.ino)
    return inode.ino


def ino_of(store: StoreFiles, name: bytes) -> int:
    """The inode number of a file in the root folder."""
    inode = store.index.lookup(ROOT, name)
    assert inode is not None
    return inode.ino


def token_of(store: StoreFiles, ino: int) -> int:
    """The number of the staged body of a file."""
    token = store.index.inode(ino).staged
    assert token is not None
    return token


def unlink_staged(store: StoreFiles, name: bytes) -> None:
    """Remove a file with its staged body, as the mount does when nobody has the file open."""
    token = store.index.purge(store.index.unlink(ROOT, name, 1).ino)
    assert token is not None
    store.staging.remove(token)


def rewrite(store: StoreFiles, ino: int, data: bytes) -> None:
    """Give the file another staged body and queue it."""
    token = store.staging.create()
    store.staging.path(token).write_bytes(data)
    store.index.stage(ino, token, len(data))
    if isinstance(store, WritableStore):
        store.queue(ino)


async def get(store: ReadStore, ino: int) -> bytes:
    """The bytes of a file, staged or encoded."""
    inode = store.index.inode(ino)
    if inode.staged is not None:
        return store.staging.path(inode.staged).read_bytes()
    assert inode.object_id is not None
    body = await store.body(inode.object_id)
    assert body.size == inode.size
    return await body.pread(0, body.size + 1)


def left_behind(store: Path, copy: Path) -> Path:
    """Copy a store that is in use, as a killed process leaves it."""
    while True:
        try:
            shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*-shm", "lock"))
        except (shutil.Error, FileNotFoundError):
            # A thread of the store has removed a file meanwhile.
            shutil.rmtree(copy)
        else:
            return copy


def deaths(
    disk: FlakyDisk, root: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Copy the store before each disk call from now on: the remains if the process dies there.

    Returns the list of copies, which grows. The copies of the index are not renewed meanwhile: a
    thread renews them in parallel, and the store must not change while it is copied.
    """

    async def renew(self: Copier, workers: object) -> None:
        return

    monkeypatch.setattr(Copier, "_renew", renew)
    copies: list[Path] = []

    def copy(call: str, what: object) -> int:
        copies.append(left_behind(root, scratch / f"dead{len(copies)}"))
        return 0

    disk.hook = copy
    return copies


def open_files(folder: Path) -> list[str]:
    """Paths that this process has open and that start with `folder`."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return [link for link in links if link.startswith(str(folder))]


def samples() -> dict[bytes, bytes]:
    """Four screenshots, a text, an empty file and a damaged PNG by name."""
    files = {b"%d.png" % number: png(frame) for number, frame in enumerate(screens(4, height=64))}
    files |= {b"note": NOTE, b"empty": b"", b"damaged.png": files[b"0.png"][:-20]}
    return files


async def check(store: ReadStore, files: dict[bytes, bytes]) -> None:
    """Check that every name has its bytes, and that every staged inode has its file."""
    for name, data in files.items():
        assert await get(store, ino_of(store, name)) == data, name
    staged = {inode.staged for inode in store.index.staged_inodes()}
    assert staged <= set(store.staging.tokens())


async def settled(store: WritableStore, files: dict[bytes, bytes]) -> None:
    """Wait until everything is encoded. Then call :func:`check`, and check the use counts."""
    with trio.fail_after(20):
        # The store keeps trying files that failed several times; drain() does not wait for them.
        while store.pending() or store.index.staged_inodes():
            await trio.sleep(0.001)
        await store.drain()
    await check(store, files)
    assert store.index.staged_inodes() == []
    for found in store.index.all_objects():
        named = [inode for _, inode in store.index.walk() if inode.object_id == found.id]
        assert found.uses == len(named)


async def encode(root: Path, files: dict[bytes, bytes]) -> None:
    """Store files, wait until all are encoded, and close the store."""
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    opened.close()


async def reopened(root: Path, files: dict[bytes, bytes]) -> None:
    """Check that a new process finds all files, encodes the rest, and writes packs for unzip."""
    forget_caches()
    opened = open_store(root)
    try:
        async with opened.running(count=2) as store:
            await check(store, files)
            await settled(store, files)
        assert opened.staging.tokens() == []
    finally:
        opened.close()
    for path in (root / "packs").glob("*.zip"):
        if path.stat().st_size:
            unzipped(path)
