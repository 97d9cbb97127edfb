"""Objects that are sent side by side: how many, how large, and what comes after them."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Barrier, Event, Lock

import pytest

from fsmount.errors import RemoteFailed
from fsmount.remote import sending
from fsmount.remote.objects import Part, damaged_parts, last_state
from fsmount.remote.push import push
from fsmount.remote.sending import Sender
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.store import open_read_store
from tests.support.backups import WANTED, fill_store, shown
from tests.support.remotes import pulled


class Watched:
    """Notes which calls are under way, and what was the most."""

    def __init__(self, remote: Transport, meet: int = 1) -> None:
        self.url = remote.url
        self.most = self.most_bytes = 0
        self.put_names: list[str] = []
        self._remote = remote
        self._now: dict[str, int] = {}
        self._lock = Lock()
        # The first calls wait for each other: that they come side by side needs no clock.
        self._meeting = Barrier(meet, timeout=30)
        self._left = meet

    def __getattr__(self, name: str) -> object:
        return getattr(self._remote, name)

    def put(self, name: str, data: bytes) -> bool:
        with self._lock:
            self._now[name] = len(data)
            self.most = max(self.most, len(self._now))
            self.most_bytes = max(self.most_bytes, sum(self._now.values()))
            self._left -= 1
            meets = self._left >= 0
        if meets:
            self._meeting.wait()
        made = self._remote.put(name, data)
        with self._lock:
            del self._now[name]
            self.put_names.append(name)
        return made


def test_objects_go_side_by_side_and_the_state_last(
    root: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill_store(root, monkeypatch)
    url = f"file://{tmp_path}/remote"
    watched = Watched(transport_to(url), meet=sending.AT_ONCE)
    with open_read_store(root) as store:
        done = push(store, watched)  # type: ignore[arg-type]
    assert watched.most == sending.AT_ONCE
    assert watched.put_names[-1] == "state/000000000001"
    state = last_state(transport_to(url))
    assert state is not None
    assert damaged_parts(transport_to(url), state) == []
    assert done.sent_objects == len(state.parts())
    assert done.sent_bytes == sum(part.length for part in state.parts())
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "MOST_BYTES", 2500)
    watched = Watched(transport_to(f"file://{tmp_path}/remote"), meet=2)
    with Sender(watched, reread=False) as sender:  # type: ignore[arg-type]
        for _ in range(9):
            data = os.urandom(1000)
            sender.send(Part.of("packs", data), data)
        large = os.urandom(5000)
        sender.send(Part.of("packs", large), large)
        sender.finish()
    assert (watched.most, watched.most_bytes) == (2, 5000)
    assert (sender.sent_objects, sender.sent_bytes) == (10, 14_000)


def test_an_error_ends_all(tmp_path: Path) -> None:
    """Nothing more is sent, and no thread stays."""
    remote = transport_to(f"file://{tmp_path}/remote")
    failing = Event()

    class Failing:
        url = remote.url

        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, name: str, data: bytes) -> bool:
            if failing.is_set():
                raise RemoteFailed(name, reason="the network is gone")
            return remote.put(name, data)

    first, second = os.urandom(10), os.urandom(10)
    with (
        pytest.raises(RemoteFailed, match="the network is gone"),
        Sender(Failing(), reread=False) as sender,  # type: ignore[arg-type]
    ):
        sender.send(Part.of("packs", first), first)
        sender.finish()
        failing.set()
        sender.send(Part.of("packs", second), second)
        sender.finish()
    assert [name for name, _ in remote.list("packs")] == [Part.of("packs", first).name]
    assert sender.sent_objects == 1
