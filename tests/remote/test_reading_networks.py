"""Stores at a URL that are read in place, over networks that fail; and how often they are asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.errors import (
    RemoteFailed,
)
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote.reading import for_reading, remote_stores
from fsmount.threads import Kind, limiter
from tests.support.backups import FILES, LARGE, WANTED, fill_store
from tests.support.buckets import BUCKET, use_endpoint
from tests.support.encoding import ino_of
from tests.support.proxy import Proxy, proxy
from tests.support.remotes import (
    pushed,
    read_file,
    use_blocks,
)

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_a_lost_network_ends_a_read_in_time_and_comes_back(
    filled: Path, between: Proxy, caches: Path, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}"
    pushed(filled, url)

    async def look() -> None:
        async with remote_stores(url, caches, budget=1 << 20, limit_s=5) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            names = list(FILES)
            assert await read_file(filesystem, ino_of(stores[""], names[0])) == FILES[names[0]]
            between.plan = lambda method, path: "cut"
            with trio.fail_after(60), pytest.raises(RemoteFailed) as caught:
                await read_file(filesystem, ino_of(stores[""], names[-1]))
            assert str(caught.value).startswith((f"{url}/packs/", f"{url}/tails/"))
            between.plan = lambda method, path: ""
            assert await read_file(filesystem, ino_of(stores[""], names[-1])) == FILES[names[-1]]

    trio.run(look)


class Hanging:
    """A transport whose reads of packs wait until they are let go."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._remote = for_reading(url)
        self.let_go = threading.Event()
        self.hangs = False

    def __getattr__(self, name: str) -> object:
        function = getattr(self._remote, name)

        def call(*args: object) -> object:
            if self.hangs:
                self.let_go.wait(60)
            return function(*args)

        return call


def test_a_server_that_hangs_costs_the_stated_time(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    """Also if the transport has no limit of its own, as a mounted server below a folder."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    hanging = Hanging(url)

    async def look() -> None:
        async with remote_stores(
            url,
            caches,
            budget=1 << 20,
            limit_s=0.5,
            connect=lambda _: hanging,  # type: ignore[arg-type,return-value]
        ) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            ino = ino_of(stores[""], max(FILES))
            hanging.hangs = True
            with pytest.raises(RemoteFailed, match="no answer in"):
                await read_file(filesystem, ino)
            hanging.let_go.set()
            # On a busy machine half a second may be too short for all of it.
            with trio.fail_after(60):
                while True:
                    try:
                        found = await read_file(filesystem, ino)
                        break
                    except RemoteFailed:
                        await trio.sleep(0.1)
            assert found == FILES[max(FILES)]

    trio.run(look)


@pytest.fixture(name="gate")
def gated_proxy(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy(moto) as running:
        use_endpoint(monkeypatch, running.port)
        yield running


def test_a_cold_picture_takes_at_most_three_rounds(
    root: Path,
    small_limits: None,
    gate: Proxy,
    caches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All requests that are there at a time are one round. It is answered when no more come.

    The reader waits for threads alone: when all its tasks are blocked, and each thread that asks
    the server stands at the gate, no other request can come before an answer.
    """
    fill_store(root, monkeypatch)
    use_blocks(512, monkeypatch)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    pushed(root, url)
    waiting: list[threading.Event] = []
    lock = threading.Lock()
    rounds: list[int] = []

    def hold(method: str, path: str) -> str:
        mine = threading.Event()
        with lock:
            waiting.append(mine)
        gate.lock.release()
        try:
            mine.wait(60)
        finally:
            gate.lock.acquire()
        return ""

    async def answer() -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            with lock:
                ready = len(waiting)
            if ready and ready == limiter(Kind.REMOTE).borrowed_tokens:
                rounds.append(ready)
                with lock:
                    there, waiting[:] = list(waiting), []
                for each in there:
                    each.set()
            # The threads of the proxy need the interpreter, too.
            await trio.to_thread.run_sync(time.sleep, 0.005)

    async def look(path: bytes) -> None:
        async with remote_stores(url, tmp_path / path.decode(), budget=1 << 20) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            gate.plan = hold
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                data = await read_file(filesystem, ino_of(stores[""], path))
                nursery.cancel_scope.cancel()
            assert data == WANTED[path]
            gate.plan = lambda method, path: ""

    most = {}
    for path in (min(FILES), max(FILES), *LARGE, b"staged"):
        rounds.clear()
        trio.run(look, path)
        most[path] = len(rounds)
    assert most[max(FILES)] == 1
    # The entry of a large file has the checksums of its segments, which come next.
    assert most[b"large"] == 2
    assert most[b"staged"] == 1
