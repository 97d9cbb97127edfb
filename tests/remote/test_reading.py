"""Stores at a URL that are read in place: right bytes, few requests, each once."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fsmount.errors import (
    Damaged,
    FsmountError,
    NotPushed,
    RemoteFailed,
    RemoteMissing,
    StatePruned,
)
from fsmount.mount.attributes import Caller
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote import blocks, cached_store, fetching, s3
from fsmount.remote.names import remote_names
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.pruning import prune
from fsmount.remote.pull import pull
from fsmount.remote.reading import for_reading, remote_stores, stores_at
from fsmount.remote.transport import transport_to
from fsmount.store.ingest import large
from fsmount.store.store import open_store
from fsmount.threads import Kind, limiter
from tests.support.backups import FILES, LARGE, MORE, WANTED, fill_store
from tests.support.buckets import BUCKET, use_endpoint
from tests.support.encoding import ino_of, put
from tests.support.proxy import Proxy, proxy
from tests.support.remotes import (
    counted,
    objects_of,
    pushed,
    read_all,
    read_file,
    shown_in_place,
)
from tests.support.repacking import fill
from tests.support.trees import make_store

BLOCK = 4096


@pytest.fixture(name="small_blocks", autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test stores have some 40 KB."""
    use_blocks(BLOCK, monkeypatch)


def use_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", size)
    monkeypatch.setattr(fetching, "BLOCK", size)


@pytest.fixture(name="between")
def proxy_to_moto(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between this process and moto, and retries that end soon."""
    monkeypatch.setattr(s3, "RETRY_S", 2)
    with proxy(moto) as running:
        use_endpoint(monkeypatch, running.port)
        yield running


def place_of(url: str, caches: Path, number: int = 0) -> Path:
    return cached_store.folder_of(url, caches) / str(number)


def test_all_bytes_are_equal(filled: Path, url: str, caches: Path) -> None:
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    trio.run(fill, filled, MORE)
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED | MORE


def test_nobody_else_can_read_the_cache(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    shown_in_place(url, caches)
    paths = [caches, *caches.rglob("*")]
    assert len(paths) > 12
    for path in paths:
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_is_listed_or_read_twice(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    calls: list[tuple[str, str]] = []
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED
    assert [name for name, _ in calls].count("list") == 1
    assert calls[0] == ("list", "state")
    # The second mount has all of it: it asks for the newest state, and that is the one it has.
    calls.clear()
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED
    staged = [each for each in calls if each[1].startswith("staged/")]
    assert calls == [("list", "state"), ("get", "state/000000000001"), *staged]
    # After a push of more, the index comes as its changed pages, and packs as their new bytes.
    before = set(objects_of(url))
    trio.run(fill, filled, MORE)
    pushed(filled, url)
    calls.clear()
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED | MORE
    new = set(objects_of(url)) - before
    assert {name for _, name in calls if name.startswith("index/")} <= new
    assert {name for call, name in calls if call == "get" and name.startswith("packs/")} <= new


def test_names_and_sizes_come_from_the_index(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    calls: list[tuple[str, str]] = []

    async def look() -> None:
        async with remote_stores(url, caches, budget=1 << 20, connect=counted(calls)) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            calls.clear()
            shown = {}
            handle = await filesystem.opendir(1)
            for _, name, found in await filesystem.readdir(handle, 2):
                shown[name] = found.size, found.blocks
            assert shown == {
                name: (len(data), -(-len(data) // 512)) for name, data in WANTED.items()
            }
            opened = await filesystem.open(
                ino_of(stores[""], b"staged"), os.O_RDONLY, Caller(0, 0, 0)
            )
            found = await filesystem.getattr(ino_of(stores[""], b"staged"))
            # The staged file is a hole on this disk, and not for programs.
            assert found.blocks == 1
            await filesystem.release(opened)

    trio.run(look)
    assert calls == []


def test_readers_of_one_picture_make_one_request(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    calls: list[tuple[str, str]] = []

    async def look() -> None:
        async with remote_stores(url, caches, budget=1 << 20, connect=counted(calls)) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            last = ino_of(stores[""], max(FILES))
            calls.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(read_file, filesystem, last)
            once = list(calls)
            assert once
            assert len(once) == len(set(once))
            await read_file(filesystem, last)
            assert calls == once

    trio.run(look)


def test_blocks_are_let_go_under_the_budget(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches, budget=2 * BLOCK) == WANTED
    packs = place_of(url, caches) / "store" / "packs"
    held = sum(path.stat().st_blocks * 512 for path in packs.iterdir())
    size = sum(path.stat().st_size for path in packs.iterdir())
    assert size > 8 * BLOCK
    assert held <= 2 * BLOCK
    # What a smaller budget finds on the disk goes, too.
    assert shown_in_place(url, caches) == WANTED
    assert shown_in_place(url, caches, budget=BLOCK) == WANTED
    assert sum(path.stat().st_blocks * 512 for path in packs.iterdir()) <= BLOCK


def test_rot_in_the_cache_is_noticed(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    store = place_of(url, caches) / "store"
    for path in [*(store / "packs").iterdir(), *(store / "raw").iterdir(), store / "index.sqlite"]:
        data = bytearray(path.read_bytes())
        for at in range(50, len(data), 1000):
            data[at] ^= 1
        path.write_bytes(data)
    calls: list[tuple[str, str]] = []
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED
    assert any(name.startswith("index/") for _, name in calls)
    assert any(name.startswith("packs/") for _, name in calls)


def test_what_a_killed_mount_leaves_is_used_or_freed(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    """Blocks without notes, notes without blocks, half an index: nothing of it is trusted."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    place = place_of(url, caches)
    first, *others = sorted((place / "store" / "packs").iterdir())
    for path in others:
        path.write_bytes(bytes(path.stat().st_size))
    (place / "blocks" / f"packs-{first.name}").unlink()
    (place / "state").unlink()
    (place / "store" / "index.sqlite").write_bytes(b"half")
    (place / "store" / "packs" / "00000099.zip").write_bytes(b"of another state")
    assert shown_in_place(url, caches, budget=1 << 30) == WANTED
    assert not (place / "store" / "packs" / "00000099.zip").exists()


def test_a_cache_of_another_store_is_emptied(
    filled: Path, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    shutil.rmtree(tmp_path / "remote")
    other = make_store(tmp_path / "other", monkeypatch)
    trio.run(fill, other, MORE)
    pushed(other, url)
    assert shown_in_place(url, caches) == MORE


def test_a_staged_file_of_an_older_state_is_not_shown(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    """A staged file keeps its number while a program writes to it."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches)[b"staged"] == b"not encoded yet"
    (path,) = (filled / "staging").iterdir()
    path.write_bytes(b"written in place")
    with open_store(filled) as store:
        store.index.update(ino_of(store, b"staged"), size=16)
    pushed(filled, url)
    assert shown_in_place(url, caches)[b"staged"] == b"written in place"


def test_two_mounts_of_one_url(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)

    async def both() -> None:
        async with remote_stores(url, caches, budget=BLOCK) as one:
            assert await read_all(one[""]) == WANTED
            async with remote_stores(url, caches, budget=1 << 20) as two:
                assert await read_all(two[""]) == WANTED
                assert await read_all(one[""]) == WANTED

    trio.run(both)
    assert sorted(os.listdir(place_of(url, caches).parent)) == ["0", "1", "README"]


# -- states that a prune removes while they are read


@pytest.fixture(name="overtaken")
def _overtaken(filled: Path, tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """A URL, and a function that pushes a newer state there and prunes the older one."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)

    def overtake() -> None:
        trio.run(fill, filled, MORE)
        pushed(filled, url)
        remote = transport_to(url)
        assert prune(remote, remote, keep_states=1).objects > 0

    return url, overtake


def test_a_state_that_a_prune_removes_below_a_mount(
    overtaken: tuple[str, Callable[[], None]], caches: Path
) -> None:
    url, overtake = overtaken

    async def read() -> None:
        async with remote_stores(url, caches, budget=1 << 20) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            await trio.to_thread.run_sync(overtake)
            errors = []
            for name in WANTED:
                try:
                    data = await read_file(filesystem, ino_of(stores[""], name))
                    assert data == WANTED[name]
                except FsmountError as error:
                    assert isinstance(error, StatePruned), error
                    errors.append(str(error))
            # What both states have can be read; for the rest, the remedy is another mount.
            assert 0 < len(errors) < len(WANTED)
            assert all("unmount and mount again" in error for error in errors)
            assert not any("--reread" in error for error in errors)

    trio.run(read)
    assert shown_in_place(url, caches) == WANTED | MORE


def test_an_object_that_is_missing_from_the_newest_state(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    shutil.rmtree(tmp_path / "remote/packs")
    with pytest.raises(RemoteMissing, match="--reread"):
        shown_in_place(url, caches)


def test_a_state_that_a_prune_removes_during_a_command(
    overtaken: tuple[str, Callable[[], None]], tmp_path: Path, caches: Path
) -> None:
    url, overtake = overtaken
    state = last_state(transport_to(url))
    assert state is not None
    encoded = state.encoded()

    class Late:
        """A transport with a prune between the state and all else."""

        def __init__(self) -> None:
            self.url = url
            self._remote = transport_to(url)

        def __getattr__(self, name: str) -> object:
            return getattr(self._remote, name)

        def list(self, folder: str) -> list[tuple[str, int]]:
            return [("state/000000000001", 1)]

        def get(self, name: str) -> bytes:
            return encoded if name.startswith("state/") else self._remote.get(name)

    overtake()
    late: Any = Late()
    with pytest.raises(StatePruned, match="run the command again"):
        pull(late, tmp_path / "back")
    with pytest.raises(StatePruned):
        damaged_parts(late, state)
    with pytest.raises(StatePruned):
        shown_in_place(url, caches, connect=lambda url: late)
    # The newer state names the index of the older one, too, so that is still there.
    with remote_names(late) as store:
        assert {path for path, node in store.index.walk() if node.size} == set(WANTED)
    shutil.rmtree(tmp_path / "remote/index")
    with pytest.raises(StatePruned), remote_names(late):
        pass


# -- servers that give wrong bytes


class Lying:
    """A transport that flips a bit in its answers about packs.

    `lies` chooses by the number of the call that is about the same object, from 1.
    """

    def __init__(self, url: str, lies: object) -> None:
        self.url = url
        self._remote = for_reading(url)
        self._lies = lies
        self.calls: Counter[str] = Counter()

    def _answer(self, name: str, data: bytes) -> bytes:
        if not name.startswith("packs/") and not name.startswith("tails/"):
            return data
        self.calls[name] += 1
        if self._lies(self.calls[name]):  # type: ignore[operator]
            half = len(data) // 2
            return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        return data

    def get(self, name: str) -> bytes:
        return self._answer(name, self._remote.get(name))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        return self._answer(name, self._remote.get_range(name, start, length))

    def __getattr__(self, name: str) -> object:
        return getattr(self._remote, name)


@pytest.fixture(name="compares", params=[True, False])
def _compares(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether whole objects are compared with their names; if not, the pictures must show it."""
    if not request.param:
        monkeypatch.setattr(fetching, "read_part", lambda remote, part: remote.get(part.name))
    return bool(request.param)


def test_wrong_bytes_are_asked_for_once_more(
    filled: Path, tmp_path: Path, caches: Path, compares: bool
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    lying = Lying(url, lambda number: number == 1)
    found = shown_in_place(url, caches, connect=lambda url: lying)  # type: ignore[arg-type,return-value]
    assert found == WANTED
    assert len(lying.calls) > 1


def test_a_server_that_always_lies_is_named_and_nothing_wrong_is_served(
    filled: Path, tmp_path: Path, caches: Path, compares: bool
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    lies = [True]

    async def look() -> list[str]:
        lying = Lying(url, lambda number: lies[0])
        async with remote_stores(url, caches, budget=1 << 20, connect=lambda _: lying) as stores:  # type: ignore[arg-type,return-value]
            filesystem = StoreFilesystem(stores[""], None)
            refused = []
            for path, data in (FILES | LARGE).items():
                try:
                    assert await read_file(filesystem, ino_of(stores[""], path)) == data
                except Damaged as error:
                    assert f"{url}/packs/" in str(error) or f"{url}/tails/" in str(error)
                    refused.append(str(error))
            # It recovers by itself, without a new mount.
            lies[0] = False
            for path, data in (FILES | LARGE).items():
                assert await read_file(filesystem, ino_of(stores[""], path)) == data
            return refused

    refused = trio.run(look)
    assert len(refused) > 2
    assert compares or all("gave wrong bytes twice" in each for each in refused)


def test_a_server_whose_bytes_are_not_compared_would_be_believed(
    filled: Path, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: without the hash of staged parts a wrong byte is served, and seen here."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    (name,) = (name for name in objects_of(url) if name.startswith("staged/"))
    (tmp_path / "remote" / name).write_bytes(b"not encoded yeT")
    found = []
    for compare in (True, False):
        if not compare:
            monkeypatch.setattr(fetching, "read_part", lambda remote, part: remote.get(part.name))
        try:
            found.append(shown_in_place(url, caches)[b"staged"])
        except Damaged as error:
            assert name in str(error)
            found.append(b"")
    assert found == [b"", b"not encoded yeT"]


# -- networks


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


# -- several machines


def test_stores_of_several_machines(
    filled: Path, url: str, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store(tmp_path / "other", monkeypatch)
    trio.run(fill, other, MORE)
    if url.startswith("file://"):
        (tmp_path / "remote").mkdir()
    pushed(filled, f"{url}/desk")
    pushed(other, f"{url}/a laptop".replace(" ", "%20"))
    wanted = {b"desk/" + name: data for name, data in WANTED.items()}
    wanted |= {b"a laptop/" + name: data for name, data in MORE.items()}
    assert shown_in_place(url, caches) == wanted
    assert shown_in_place(f"{url}/", caches) == wanted
    assert sorted(stores_at(f"{url}/desk")) == [""]


def test_nothing_was_pushed(url: str, caches: Path) -> None:
    with pytest.raises(NotPushed, match="nor to a folder directly below"):
        shown_in_place(url, caches)


def test_a_full_disk_shrinks_the_cache(
    filled: Path, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    real = blocks.Files.write
    failures = [3]

    def write(files: blocks.Files, first: blocks.Block, data: bytes) -> None:
        failures[0] -= 1
        if failures[0] == 0:
            raise OSError(28, "No space left on device", "packs/x")
        real(files, first, data)

    monkeypatch.setattr(blocks.Files, "write", write)
    assert shown_in_place(url, caches) == WANTED
    # If that does not help, it says so.
    monkeypatch.setattr(
        blocks.Files, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space", "packs/x"))
    )
    shutil.rmtree(caches)
    with pytest.raises(FsmountError, match=r"packs/x: the cache of this mount failed: No space"):
        shown_in_place(url, caches)


def test_a_large_file_is_read_in_parts(
    root: Path, small_limits: None, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "KEEP_BYTES", 1 << 20)
    data = os.urandom(3 << 20)
    trio.run(fill, root, {b"video": data})
    url = f"file://{tmp_path}/remote"
    pushed(root, url)

    async def look() -> None:
        calls: list[tuple[str, str]] = []
        async with remote_stores(url, caches, budget=8 << 20, connect=counted(calls)) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            calls.clear()
            handle = await filesystem.open(
                ino_of(stores[""], b"video"), os.O_RDONLY, Caller(0, 0, 0)
            )
            assert await filesystem.read(handle, 2_000_000, 5) == data[2_000_000:2_000_005]
            assert [call for call, name in calls if name.startswith("raw/")] == ["get_range"]
            await filesystem.release(handle)
            assert await read_file(filesystem, ino_of(stores[""], b"video")) == data

    trio.run(look)


def test_a_file_that_is_staged_beside(root: Path, tmp_path: Path, caches: Path) -> None:
    """An empty staged file and one of several parts."""
    with open_store(root) as store:
        put(store, b"empty", b"")
        put(store, b"long", bytes(range(256)) * 200)
    url = f"file://{tmp_path}/remote"
    pushed(root, url)
    assert shown_in_place(url, caches) == {b"empty": b"", b"long": bytes(range(256)) * 200}
