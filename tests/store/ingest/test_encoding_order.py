"""Files are encoded in order, and equal files get one object, whichever leave the queue early."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.files import StoreFiles
from fsmount.store.frames import jobs
from fsmount.store.index import ROOT
from fsmount.store.ingest import committer, large, retries
from fsmount.store.ingest.outcome import Outcome
from fsmount.store.ingest.pipeline import Pipeline
from fsmount.store.packs.writer import Writer
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import Inline, forget_caches, get, put, rewrite
from tests.support.frames import FlakyDisk, png, screens

P = ParamSpec("P")
LARGE = 12_000
JOBS: list[Callable[..., Any]] = [jobs.look, jobs.encode]
# Methods of the pipeline that write a body when its file has the turn.
SECTIONS = ("_end", "_keep")


@functools.cache
def bodies() -> list[bytes]:
    """Pictures, other files, and a large file."""
    pictures = [png(frame) for frame in screens(3, height=48, width=64)]
    return [*pictures, b"a note", b"another note", b"large" * LARGE]


class Watch:
    """Counts files in the section that appends, and notes the order of appended entries."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.inside = self.most = 0
        self.appended: list[str] = []
        self.encodes = 0
        for name in SECTIONS:
            patch.setattr(Pipeline, name, self._watched(getattr(Pipeline, name)))
        append = Writer.append

        def noted(writer: Writer, entry: Any, about: Any, **more: Any) -> Any:
            made = append(writer, entry, about, **more)
            self.appended.append(about.path)
            return made

        patch.setattr(Writer, "append", noted)

    def _watched(
        self, real: Callable[Concatenate[Pipeline, P], Awaitable[Outcome]]
    ) -> Callable[Concatenate[Pipeline, P], Awaitable[Outcome]]:
        async def watched(this: Pipeline, /, *args: P.args, **more: P.kwargs) -> Outcome:
            self.encodes += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                return await real(this, *args, **more)
            finally:
                self.inside -= 1

        return watched


@pytest.fixture
def watch(inline: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(large, "KEEP_BYTES", LARGE)
    yield Watch(monkeypatch)


def remove(store: WritableStore, name: bytes) -> None:
    """Remove a file as ``rm`` does."""
    left = store.index.unlink(ROOT, name, 5)
    token = store.index.purge(left.ino)
    if token is not None:
        store.discard(token)


def objects(store: StoreFiles) -> Counter[tuple[bytes, int]]:
    return Counter((found.sha256, found.size) for found in store.index.all_objects())


# -- a file in the middle leaves the queue


def _removed(store: WritableStore, ino: int) -> None:
    remove(store, b"b")


def _reopened(store: WritableStore, ino: int) -> None:
    store.hold(ino)


def _gone(store: WritableStore, ino: int) -> None:
    token = store.index.inode(ino).staged
    assert token is not None
    store.staging.remove(token)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("third", [0, 3, 5], ids=["picture", "note", "large"])
@pytest.mark.parametrize("leave", [_removed, _reopened, _gone])
async def test_the_next_file_waits_for_the_one_before(
    root: Path,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    leave: Callable[[WritableStore, int], None],
    third: int,
    equal: bool,
) -> None:
    reached, go = trio.Event(), trio.Event()

    async def before(function: Callable[..., Any]) -> None:
        if function is jobs.encode and not reached.is_set():
            reached.set()
            await go.wait()

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    first, second = bodies()[1], bodies()[2]
    last = first if equal else bodies()[third]
    opened = open_store(root)
    async with opened.running(count=2) as store:
        put(store, b"a", first)
        gone = put(store, b"b", second)
        ino = put(store, b"c", last)
        leave(store, gone)
        await reached.wait()
        # Let all tasks run as far as they can.
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        assert watch.appended == []
        go.set()
        with trio.fail_after(20):
            while store.index.inode(ino).staged is not None:
                await trio.sleep(0.001)
        assert await get(store, ino) == last
    assert watch.most == 1
    assert watch.appended == (["a"] if equal else ["a", "c"])
    assert set(objects(opened).values()) == {1}
    opened.close()


@pytest.mark.parametrize("body", range(6))
async def test_equal_files_share_one_object_while_both_are_under_way(
    root: Path, watch: Watch, body: int
) -> None:
    opened = open_store(root)
    async with opened.running(count=2) as store:
        inodes = [put(store, b"%d" % number, bodies()[body]) for number in range(5)]
        with trio.fail_after(20):
            await store.drain()
        for ino in inodes:
            assert await get(store, ino) == bodies()[body]
    assert [found.uses for found in opened.index.all_objects()] == [5]
    assert len(os.listdir(opened.layout.raw)) == (body == 5)
    opened.close()


# -- any sequence of actions

ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 5)),
    st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("reopen"), st.integers(0, 9), st.integers(0, 5)),
    st.tuples(st.just("fail"), st.sampled_from([0, 1]), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 60), st.just(0)),
)


class Run:
    """Runs one sequence of actions on a store of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, delays: list[int]) -> None:
        self.patch = patch
        self.delays = delays
        self.watch = Watch(patch)
        self.files: dict[bytes, tuple[int, bytes]] = {}
        # Names that are there from the start and were not changed since.
        self.calm: set[bytes] = set()
        self.failing: set[Callable[..., Any]] = set()
        self._jobs = 0
        self._made = 0

    async def before(self, function: Callable[..., Any]) -> None:
        self._jobs += 1
        for _ in range(self.delays[self._jobs % len(self.delays)]):
            await trio.lowlevel.checkpoint()
        if function in self.failing:
            self.failing.discard(function)
            # The failure may hit any file under way. The encoder puts that file back behind others.
            self.calm.clear()
            raise OSError(errno.EIO, "told to fail")

    async def act(self, store: WritableStore, action: str, what: int, body: int) -> None:
        data = bodies()[body]
        name = b"%d" % what
        if action == "wait":
            for _ in range(what):
                await trio.lowlevel.checkpoint()
        elif action == "fail":
            self.failing.add(JOBS[what])
        elif action == "put":
            self._made += 1
            fresh = b"new %d %d" % (what, self._made)
            self.files[fresh] = put(store, fresh, data), data
        elif name in self.files:
            self.calm.discard(name)
            ino, _ = self.files[name]
            if action == "remove":
                remove(store, name)
                del self.files[name]
            else:
                store.hold(ino)
                await trio.lowlevel.checkpoint()
                store.unhold(ino)
                rewrite(store, ino, data)
                self.files[name] = ino, data

    async def main(self, root: Path, start: list[int], actions: list[tuple[str, int, int]]) -> None:
        config.make(root, FlakyDisk())
        opened = open_store(root)
        try:
            async with opened.running(count=2) as store:
                for number, body in enumerate(start):
                    name = b"%d" % number
                    self.files[name] = put(store, name, bodies()[body]), bodies()[body]
                    self.calm.add(name)
                for action in actions:
                    await self.act(store, *action)
                self.failing.clear()
                with trio.fail_after(20):
                    while store.index.staged_inodes():
                        await trio.sleep(0.001)
                for name, (ino, data) in self.files.items():
                    assert await get(store, ino) == data, name
            self.verdict(opened)
        finally:
            opened.close()

    def verdict(self, store: StoreFiles) -> None:
        assert self.watch.most <= 1
        # There is no object if all files were removed before they were coded.
        assert set(objects(store).values()) <= {1}, "equal files were coded twice"
        calm = [path for path in self.watch.appended if path.encode() in self.calm]
        assert calm == sorted(calm), "a file overtook another"
        for ino, _ in self.files.values():
            assert store.index.inode(ino).object_id is not None
        # A file that fails or changes is encoded again. This may leave objects that no file shows.
        with_files = {found.id for found in store.index.all_objects() if found.uses}
        shown = {store.index.inode(ino).object_id for ino, _ in self.files.values()}
        assert with_files == shown


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=8),
    st.lists(ACTIONS, max_size=12),
    st.lists(st.integers(0, 25), min_size=1, max_size=6),
)
def test_any_sequence_of_puts_removals_and_failures(
    start: list[int], actions: list[tuple[str, int, int]], delays: list[int]
) -> None:
    forget_caches()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(store_module, "Workers", Inline)
        patch.setattr(large, "KEEP_BYTES", LARGE)
        patch.setattr(committer, "_BATCH_SECONDS", 0.0)
        patch.setattr(retries, "_RETRY_SECONDS", 0.0)
        run = Run(patch, delays)
        patch.setattr(Inline, "before", staticmethod(run.before))
        trio.run(run.main, Path(scratch) / "store", start, actions)
