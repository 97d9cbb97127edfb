"""Networks, servers and programs that fail: in the middle of a push or a pull, at each call."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from fsmount.errors import (
    Damaged,
    FormatUnsupported,
    FsmountError,
    KeyRefused,
    PushOvertaken,
    RemoteConflict,
    RemoteFailed,
    RemoteMissing,
    RemoteRefused,
)
from fsmount.remote import s3
from fsmount.remote.encryption import recipients
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.opening import Unlock, open_keys, open_remote
from fsmount.remote.pruning import prune
from fsmount.remote.pull import pull
from fsmount.remote.push import push
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_read_store
from tests.support.backups import MORE, WANTED, shown
from tests.support.buckets import BUCKET, use_endpoint
from tests.support.proxy import Proxy, proxy
from tests.support.remotes import (
    new_identity,
    objects_of,
    opened_to_push,
    pulled,
    push_through,
    pushed,
    shown_in_place,
)
from tests.support.repacking import fill

# FSMOUNT_FAULTS=100 makes a long run of it; FSMOUNT_SEED chooses another one.
FAULTS = int(os.environ.get("FSMOUNT_FAULTS", "6"))
SEED = int(os.environ.get("FSMOUNT_SEED", "1"))
ALLOWED = (Damaged, RemoteFailed, RemoteMissing, RemoteRefused, PushOvertaken)
ACTIONS = ("cut", "lost", "truncate", "corrupt", "503", "412", "403", "delay")


@pytest.fixture(name="between")
def proxy_to_moto(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between this process and moto, and retries that end soon."""
    monkeypatch.setattr(s3, "RETRY_S", 2)
    with proxy(moto) as running:
        use_endpoint(monkeypatch, running.port)
        yield running


class Killed(BaseException):
    """The program ends here."""


class Deadly:
    """A transport whose program is killed at a call, before or after the server did it."""

    def __init__(self, remote: Transport, at: int, *, after: bool, only: str = "") -> None:
        self.url = remote.url
        self.calls = 0
        self._remote = remote
        self._at = at
        self._after = after
        self._only = only

    def __getattr__(self, name: str) -> object:
        function = getattr(self._remote, name)
        if self._only not in ("", name):
            return function

        def call(*args: object) -> object:
            self.calls += 1
            dies = self.calls == self._at
            if dies and not self._after:
                raise Killed
            done = function(*args)
            if dies:
                raise Killed
            return done

        return call


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("after", [False, True])
def test_a_push_killed_at_each_call(filled: Path, tmp_path: Path, after: bool) -> None:
    pushed(filled, f"file://{tmp_path}/remote")
    trio.run(fill, filled, MORE)
    generations = []
    for at in range(1, 100):
        shutil.copytree(tmp_path / "remote", tmp_path / f"remote{at}")
        remote = transport_to(f"file://{tmp_path}/remote{at}")
        killed = False
        with open_read_store(filled) as store:
            try:
                push(store, Deadly(remote, at, after=after))  # type: ignore[arg-type]
            except Killed:
                killed = True
        state = last_state(remote)
        assert state is not None
        assert damaged_parts(remote, state) == []
        generations.append(state.generation)
        assert pushed(filled, remote.url).generation == 2
        if not killed:
            break
    # The last call but one makes the state; then the push looks for later ones.
    assert generations == [1] * (at - 3) + [2 if after else 1, 2, 2]
    assert at > 6
    pulled(f"file://{tmp_path}/remote{at - 1}", tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


@pytest.mark.usefixtures("one_at_a_time")
def test_a_push_goes_on(filled: Path, tmp_path: Path) -> None:
    """Nothing is sent twice: each run is killed after its first new object."""
    url = f"file://{tmp_path}/remote"
    runs = 0
    while True:
        runs += 1
        remote = transport_to(url)
        deadly = Deadly(remote, 1, after=True, only="put")
        with open_read_store(filled) as store:
            try:
                push(store, deadly)  # type: ignore[arg-type]
                break
            except Killed:
                assert len(objects_of(url)) == runs
    state = last_state(transport_to(url))
    assert state is not None
    # One run for each object, one for the state, and the one that had nothing to send.
    assert runs == len(state.parts()) + 2


class _Dying(Disk):
    """A disk of a program that is killed at a call that changes it."""

    def __init__(self, at: int) -> None:
        self._left = at

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._left -= 1
        if self._left == 0:
            super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)
            raise Killed
        return super().pwrite(fd, data, offset)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)
        self._step()

    def ftruncate(self, fd: int, size: int) -> None:
        self._step()
        super().ftruncate(fd, size)


def test_a_pull_killed_at_each_call(filled: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    back = tmp_path / "back"
    at = 0
    while True:
        at += 1
        try:
            pulled(url, back, disk=_Dying(at))
            break
        except Killed:
            # What has its config is whole; nothing else is a store.
            if (back / "fsmount.json").exists():
                break
    assert at > 20
    assert shown(back) == WANTED


@pytest.mark.parametrize("seed", range(SEED, SEED + FAULTS))
def test_faults_of_a_network(filled: Path, between: Proxy, tmp_path: Path, seed: int) -> None:
    """Each command ends well or with an error of ours. In the end all bytes are there."""
    url = f"s3://{BUCKET}/{tmp_path.name}"
    dice = random.Random(seed)

    def plan(method: str, path: str) -> str:
        return dice.choice(ACTIONS) if dice.random() < 0.1 else ""

    between.plan = plan
    for wanted in (WANTED, WANTED | MORE):
        for _ in range(100):
            try:
                pushed(filled, url)
                break
            except FsmountError as error:
                assert isinstance(error, ALLOWED), error
        else:
            raise AssertionError("no push was ever complete")
        back = tmp_path / f"back{len(wanted)}"
        for _ in range(100):
            try:
                pulled(url, back)
                break
            except FsmountError as error:
                assert isinstance(error, ALLOWED), error
                assert not (back / "fsmount.json").exists()
        assert shown(back) == wanted
        if wanted == WANTED:
            trio.run(fill, filled, MORE)


@pytest.mark.parametrize("seed", range(SEED, SEED + -(-FAULTS // 3)))
def test_faults_of_a_network_on_an_encrypted_url(
    filled: Path, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also while keys are made, read and changed, and while old states are removed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))
    url = f"s3://{BUCKET}/{tmp_path.name}"
    identity, public = new_identity(tmp_path)
    dice = random.Random(seed)

    def plan(method: str, path: str) -> str:
        return dice.choice(ACTIONS) if dice.random() < 0.1 else ""

    def again(do: Callable[[], object]) -> None:
        for _ in range(100):
            try:
                do()
                return
            except FsmountError as error:
                # Half a key, wrong bytes in one, or another number of keys than before.
                own = (*ALLOWED, KeyRefused, RemoteConflict, FormatUnsupported)
                assert isinstance(error, own), error
        raise AssertionError("it was never complete")

    def encrypted_push() -> None:
        below = transport_to(url)
        is_there = below.size("keys/000001.age") is not None
        named = () if is_there else (public,)
        push_through(filled, opened_to_push(filled, url, identity, named))

    between.plan = plan
    again(encrypted_push)
    trio.run(fill, filled, MORE)
    again(lambda: recipients.rotate(*open_keys(url, Unlock(identity))))
    again(encrypted_push)
    again(lambda: prune(open_remote(url, Unlock(identity)), transport_to(url), keep_states=1))
    again(lambda: pull(open_remote(url, Unlock(identity)), tmp_path / "back"))
    assert shown(tmp_path / "back") == WANTED | MORE


def test_wrong_bytes_are_never_taken(filled: Path, between: Proxy, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}"
    pushed(filled, url)
    between.plan = lambda method, path: "corrupt" if "/packs/" in path else ""
    with pytest.raises(Damaged, match=r"packs/.* other bytes than were sent"):
        pulled(url, tmp_path / "back")
    assert not (tmp_path / "back/fsmount.json").exists()


def test_a_server_that_contradicts_itself(filled: Path, between: Proxy, tmp_path: Path) -> None:
    """It says that an object is there which it does not have: no state may name it."""
    url = f"s3://{BUCKET}/{tmp_path.name}"
    refused = ""

    def plan(method: str, path: str) -> str:
        return "412" if method == "PUT" and f"/{refused}/" in path else ""

    between.plan = plan
    for refused in ("packs", "state"):  # noqa: B007
        with pytest.raises(RemoteFailed, match="as if it were there"):
            pushed(filled, url)
        assert last_state(transport_to(url)) is None


def test_nothing_is_put_if_nothing_changed(filled: Path, between: Proxy, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}"
    pushed(filled, url)
    assert any(
        path.startswith(f"/{BUCKET}/{tmp_path.name}/state/") for _, path, _ in between.sent()
    )
    between.seen.clear()
    pushed(filled, url)
    assert between.sent() == []
    assert len(between.seen) == 2


def test_a_push_reads_no_index_that_it_has_noted(
    filled: Path, between: Proxy, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}"
    pushed(filled, url)
    trio.run(fill, filled, MORE)
    between.seen.clear()
    pushed(filled, url)
    assert [path for method, path, _ in between.seen if method == "GET" and "/index/" in path] == []
    assert shown_in_place(url, tmp_path / "caches") == WANTED | MORE
    # Without the note it reads what is there.
    shutil.rmtree(filled / "pushed")
    trio.run(fill, filled, {b"last": b"the last words"})
    between.seen.clear()
    pushed(filled, url)
    assert [path for method, path, _ in between.seen if method == "GET" and "/index/" in path]
    assert shown_in_place(url, tmp_path / "caches") == WANTED | MORE | {b"last": b"the last words"}


def test_one_more_picture_sends_little(filled: Path, between: Proxy, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}"
    pushed(filled, url)
    with open_read_store(filled) as store:
        before = sum(length for length, _ in store.index.packs().values())
    name, data = next(iter(MORE.items()))
    trio.run(fill, filled, {name: data})
    with open_read_store(filled) as store:
        entry = sum(length for length, _ in store.index.packs().values()) - before
    between.seen.clear()
    pushed(filled, url)
    index = sum(size for _, path, size in between.sent() if "/index/" in path)
    assert sum(size for _, _, size in between.sent()) <= entry + index + (64 << 10)
    assert index <= 32 << 10


def test_a_network_lost_in_the_middle(
    filled: Path, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "RETRY_S", 1)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    puts: set[str] = set()

    def plan(method: str, path: str) -> str:
        if method == "PUT":
            puts.add(path)
        return "cut" if len(puts) >= 3 else ""

    between.plan = plan
    with pytest.raises(RemoteFailed, match="AWS_ENDPOINT_URL and the network"):
        pushed(filled, url)
    between.plan = lambda method, path: ""
    done = pushed(filled, url)
    state = last_state(transport_to(url))
    assert state is not None
    # What came before is not sent again.
    assert done.sent_objects == len(state.parts()) - 2
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED
