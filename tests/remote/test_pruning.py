"""Prune: what is removed, what stays, and pushes and prunes at the same time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fsmount.errors import NotPushed, PushOvertaken, RemoteRefused
from fsmount.remote import objects
from fsmount.remote.limits import Dry, Slow, part_bytes
from fsmount.remote.objects import damaged_parts, last_state, state_names
from fsmount.remote.opening import Unlock, open_remote
from fsmount.remote.pruning import PruneSummary, prune
from fsmount.remote.push import push
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.store import open_read_store
from tests.support.backups import MORE, WANTED, shown
from tests.support.buckets import BUCKET, use_endpoint
from tests.support.proxy import proxy
from tests.support.remotes import (
    new_identity,
    objects_of,
    opened_to_push,
    pulled,
    push_through,
    pushed,
)
from tests.support.repacking import fill


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))


def pruned(url: str, keep_states: int = 1, **options: float) -> PruneSummary:
    remote = transport_to(url)
    return prune(remote, remote, keep_states=keep_states, **options)  # type: ignore[arg-type]


def named(url: str) -> set[str]:
    """The objects of the newest state, and it."""
    state = last_state(transport_to(url))
    assert state is not None
    return {part.name for part in state.parts()} | {objects.state_name(state.generation)}


def several_pushes(filled: Path, url: str) -> None:
    pushed(filled, url)
    for name, data in MORE.items():
        trio.run(fill, filled, {name: data})
        pushed(filled, url)


def is_whole(url: str) -> bool:
    remote = transport_to(url)
    state = last_state(remote)
    return state is not None and damaged_parts(remote, state) == []


def test_what_no_kept_state_names_is_removed(filled: Path, url: str, tmp_path: Path) -> None:
    several_pushes(filled, url)
    before = objects_of(url)
    foreign = "packs/mine"
    transport_to(url).put(foreign, b"x")
    wanted = named(url)
    trial = pruned(url, dry_run=True)
    assert set(objects_of(url)) == set(before) | {foreign}
    done = pruned(url)
    assert (done.generation, done.kept_states, done.retained) == (6, 1, 0)
    assert (trial.states, trial.objects, trial.bytes) == (done.states, done.objects, done.bytes)
    after = objects_of(url)
    # The state before shows the same as the one that the prune made.
    assert set(after) == wanted | {foreign, "state/000000000006"}
    assert done.states == 4
    removed = set(before) - set(after)
    assert done.bytes == sum(len(before[n]) for n in removed if not n.startswith("state/"))
    # Nothing is left to do: no state is made for it.
    assert pruned(url).generation == 6
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


def test_a_push_after_a_prune(filled: Path, place: str, tmp_path: Path) -> None:
    several_pushes(filled, place)
    pruned(place)
    assert not pushed(filled, place).is_new
    trio.run(fill, filled, {b"later": b"some bytes"})
    done = pushed(filled, place)
    # What was there is not sent again; what is new lies in folders of its own.
    assert 0 < done.sent_objects <= 3
    state = last_state(transport_to(place))
    assert state is not None
    assert sum(part.folder.endswith("/1") for part in state.parts()) == done.sent_objects
    pruned(place)
    assert set(objects_of(place)) == named(place) | {"state/000000000007"}
    shutil.copytree(filled, tmp_path / "copy")
    pushed(filled, place, reread=True)
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE | {b"later": b"some bytes"}


def test_states_are_kept_by_number_and_by_days(
    filled: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_700_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    for new, data in MORE.items():
        trio.run(fill, filled, {new: data})
        pushed(filled, place)
        now[0] += 86_400
    remote = transport_to(place)
    assert pruned(place, 9).states == 0
    assert pruned(place, 3, dry_run=True).states == 1
    # Pushed one, two and three days ago.
    assert pruned(place, 1, keep_days=3.5).states == 1
    assert state_names(remote) == [objects.state_name(n) for n in (2, 3, 4, 5)]
    # 4 and 5 show the same, so the two newest that differ are 5 and 3.
    assert pruned(place, 2).states == 1
    assert state_names(remote)[0] == objects.state_name(3)
    for name in state_names(remote):
        assert damaged_parts(remote, objects.read_state(remote, name)) == []


def test_nothing_was_pushed(place: str) -> None:
    with pytest.raises(NotPushed):
        pruned(place)


def test_an_encrypted_url(filled: Path, url: str, tmp_path: Path) -> None:
    identity, public = new_identity(tmp_path)
    push_through(filled, opened_to_push(filled, url, recipients=[public]))
    for name, data in MORE.items():
        trio.run(fill, filled, {name: data})
        push_through(filled, opened_to_push(filled, url, identity))
    below, remote = transport_to(url), open_remote(url, Unlock(identity))
    done = prune(remote, below, keep_states=1)
    assert done.states == 4
    assert done.objects > 4
    state = last_state(open_remote(url, Unlock(identity)))
    assert state is not None
    assert damaged_parts(remote, state) == []
    found = [name for folder in objects.FOLDERS for name, _ in below.list(folder)]
    assert len(found) == len(state.parts())
    trio.run(fill, filled, {b"later": b"some bytes"})
    push_through(filled, opened_to_push(filled, url, identity))
    state = last_state(remote)
    assert state is not None
    assert damaged_parts(remote, state) == []


def test_objects_that_a_server_retains(
    filled: Path, moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(moto) as between:
        use_endpoint(monkeypatch, between.port)
        url = f"s3://{BUCKET}/{tmp_path.name}"
        several_pushes(filled, url)
        before = objects_of(url)
        for action in ("retained", "403"):
            between.plan = lambda method, path, action=action: (  # type: ignore[misc]
                action if method in ("DELETE", "POST") else ""
            )
            done = pruned(url)
            # Old states stay, and so does what they name.
            assert (done.states, done.objects) == (0, 0)
            assert done.retained >= 4
        assert set(before) < set(objects_of(url))


def test_objects_that_are_retained_one_by_one(filled: Path, place: str) -> None:
    several_pushes(filled, place)
    remote = transport_to(place)

    class Retaining:
        url = place

        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def delete(self, name: str) -> None:
            if name == "state/000000000002" or name.startswith("tails/"):
                raise RemoteRefused(name, reason="object lock")
            remote.delete(name)

    retaining = Retaining()
    done = prune(retaining, retaining, keep_states=1)  # type: ignore[arg-type]
    assert done.states == 3
    assert done.retained > 1
    # The state that is retained is whole.
    assert damaged_parts(remote, objects.read_state(remote, "state/000000000002")) == []


# -- at the same time


class Between:
    """A transport that does something before its call number `at`."""

    def __init__(self, remote: Transport, at: int, do: Callable[[], object]) -> None:
        self.url = remote.url
        self.calls = 0
        self._remote = remote
        self._at = at
        self._do = do

    def __getattr__(self, name: str) -> object:
        function = getattr(self._remote, name)

        def call(*args: object) -> object:
            self.calls += 1
            if self.calls == self._at:
                self._do()
            return function(*args)

        return call


@pytest.fixture(name="stopped")
def stopped_push(filled: Path, place: str) -> Path:
    """A store whose last push was killed before its state: its objects are there, unnamed."""
    pushed(filled, place)
    trio.run(fill, filled, MORE)
    remote = transport_to(place)

    class Killed(BaseException):
        pass

    class Deadly:
        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, name: str, data: bytes) -> bool:
            if name.startswith("state/"):
                raise Killed
            return remote.put(name, data)

    with open_read_store(filled) as store, pytest.raises(Killed):
        push(store, Deadly())  # type: ignore[arg-type]
    assert len(objects_of(place)) > len(named(place))
    return filled


@pytest.mark.usefixtures("one_at_a_time")
def test_a_prune_at_any_moment_of_a_push(stopped: Path, place: str, tmp_path: Path) -> None:
    """The push finds objects there that no state names, and the prune removes them."""
    ends = []
    for at in range(1, 100):
        copy = f"{place}{at}"
        shutil.copytree(tmp_path / "remote", f"{tmp_path}/remote{at}")
        remote = Between(transport_to(copy), at, lambda copy=copy: pruned(copy))  # type: ignore[misc]
        with open_read_store(stopped) as store:
            try:
                push(store, remote)  # type: ignore[arg-type]
                ends.append("pushed")
            except PushOvertaken:
                ends.append("overtaken")
        assert is_whole(copy), at
        pushed(stopped, copy)
        assert is_whole(copy), at
        if remote.calls < at:
            break
    assert ends.count("overtaken") > 6
    assert ends[-1] == "pushed"
    pulled(copy, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


def test_a_push_at_any_moment_of_a_prune(stopped: Path, place: str, tmp_path: Path) -> None:
    ends = []
    for at in range(1, 100):
        copy = f"{place}{at}"
        shutil.copytree(tmp_path / "remote", f"{tmp_path}/remote{at}")
        remote = Between(transport_to(copy), at, lambda copy=copy: pushed(stopped, copy))  # type: ignore[misc]
        try:
            prune(remote, remote, keep_states=1)  # type: ignore[arg-type]
            ends.append("pruned")
        except PushOvertaken:
            ends.append("overtaken")
        assert is_whole(copy), at
        if remote.calls < at:
            break
        pulled(copy, tmp_path / f"back{at}")
        assert shown(tmp_path / f"back{at}") == WANTED | MORE
    assert {"overtaken", "pruned"} == set(ends)


@pytest.mark.parametrize("begins_with", ["state/", "packs/", "tails/"])
def test_a_prune_that_sleeps_while_others_push_and_prune(
    stopped: Path, place: str, tmp_path: Path, begins_with: str
) -> None:
    """It wakes up before it makes its state, or before it removes an object."""
    remote = transport_to(place)
    slept: list[int] = []

    def sleep() -> None:
        if not slept:
            slept.append(1)
            pushed(stopped, place)
            for number in range(3):
                trio.run(fill, stopped, {b"new %d" % number: bytes([number]) * 3000})
                pushed(stopped, place)
                pruned(place)

    class Sleepy:
        url = place

        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, name: str, data: bytes) -> bool:
            if begins_with == "state/":
                sleep()
            return remote.put(name, data)

        def delete(self, name: str) -> None:
            if name.startswith(begins_with):
                sleep()
            remote.delete(name)

    sleepy = Sleepy()
    try:
        prune(sleepy, sleepy, keep_states=1)  # type: ignore[arg-type]
        ended = "pruned"
    except PushOvertaken:
        ended = "overtaken"
    assert ended == ("overtaken" if begins_with == "state/" else "pruned")
    assert slept
    assert is_whole(place)
    pulled(place, tmp_path / "back")
    assert set(shown(tmp_path / "back")) == set(WANTED | MORE) | {b"new 0", b"new 1", b"new 2"}


def test_a_push_that_sleeps_while_others_push_and_prune(
    stopped: Path, place: str, tmp_path: Path
) -> None:
    """The number of its state is free again when it wakes up."""
    remote = transport_to(place)

    class Sleepy:
        url = place

        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, name: str, data: bytes) -> bool:
            if name.startswith("state/"):
                for number in range(3):
                    trio.run(fill, stopped, {b"new %d" % number: bytes([number]) * 3000})
                    pushed(stopped, place)
                pruned(place)
                assert remote.size(name) is None
            return remote.put(name, data)

    with open_read_store(stopped) as store, pytest.raises(PushOvertaken):
        push(store, Sleepy())  # type: ignore[arg-type]
    assert is_whole(place)
    assert state_names(remote) == [objects.state_name(n) for n in (4, 5)]


def test_a_prune_killed_at_each_call(filled: Path, place: str, tmp_path: Path) -> None:
    several_pushes(filled, place)

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    for at in range(1, 100):
        copy = f"{place}{at}"
        shutil.copytree(tmp_path / "remote", f"{tmp_path}/remote{at}")
        remote = Between(transport_to(copy), at, die)
        killed = False
        try:
            prune(remote, remote, keep_states=2)  # type: ignore[arg-type]
        except Killed:
            killed = True
        whole = transport_to(copy)
        for name in state_names(whole):
            assert damaged_parts(whole, objects.read_state(whole, name)) == [], at
        pruned(copy, 2)
        assert set(objects_of(copy)) >= named(copy)
        if not killed:
            break
    assert at > 10


# -- limits


def test_a_limit_of_the_bandwidth(place: str) -> None:
    now = [100.0]
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    slow = Slow(transport_to(place), 1000, lambda: now[0], sleep)
    slow.put("packs/a", bytes(500))
    assert slept == []
    slow.put("packs/b", bytes(2000))
    assert slept == [0.5]
    # The network took half of the time itself.
    now[0] += 1
    slow.put("packs/c", bytes(10))
    assert slept == [0.5, 1.0]
    now[0] += 100
    # Time that nobody used is not made up for.
    slow.put("packs/d", bytes(3000))
    slow.put("packs/e", bytes(1))
    assert slept == [0.5, 1.0, 3.0]
    assert slow.get("packs/b") == bytes(2000)
    assert [name for name, _ in slow.list("packs")] == [f"packs/{one}" for one in "abcde"]


def test_a_limit_makes_smaller_objects(filled: Path, place: str, tmp_path: Path) -> None:
    assert part_bytes(1) == 1 << 20
    assert part_bytes(10 << 20) == 40 << 20
    with open_read_store(filled) as store:
        push(store, transport_to(place), part_bytes=3000)
    sizes = [len(data) for name, data in objects_of(place).items()
             if re.match("packs|raw|tails|staged", name)]  # fmt: skip
    assert len(sizes) > 10
    assert max(sizes) == 3000
    assert pushed(filled, place).sent_objects == 0
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_a_trial_run_sends_nothing(filled: Path, place: str) -> None:
    pushed(filled, place)
    trio.run(fill, filled, MORE)
    before = objects_of(place)
    with open_read_store(filled) as store:
        trial = push(store, Dry(transport_to(place)))
    assert objects_of(place) == before
    done = pushed(filled, place)
    assert (trial.sent_objects, trial.sent_bytes) == (done.sent_objects, done.sent_bytes)
