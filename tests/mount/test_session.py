"""Errors that keep a mount from starting reach the process that starts it.

No test here mounts anything.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pyfuse3
import pytest

from fsmount.errors import (
    BadMountpoint,
    FsmountError,
    NoFuse,
    NoStore,
    StoreLocked,
    UsageError,
)
from fsmount.mount import session
from fsmount.mount.options import MountOptions
from fsmount.mount.readonly_fs import Tree
from fsmount.mount.session import MountRequest
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.lock import Lock


@pytest.fixture(autouse=True)
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "check_fuse", lambda options: None)
    monkeypatch.delenv("FSMOUNT_LOG", raising=False)
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    config.make(path, Disk())
    return path


@pytest.mark.parametrize("start", [session.serve, session.serve_in_background])
def test_errors_before_the_mount_reach_the_caller(
    start: object, tmp_path: Path, store: Path, place: Path
) -> None:
    assert callable(start)
    with pytest.raises(BadMountpoint):
        start(MountRequest(store, tmp_path / "missing"))
    with pytest.raises(NoStore) as missing:
        start(MountRequest(tmp_path, place))
    assert missing.value.exit_code == 10
    lock = Lock(store / "lock")
    with pytest.raises(StoreLocked) as locked:
        start(MountRequest(store, place))
    lock.release()
    assert locked.value.exit_code == 11
    assert str(os.getpid()) in str(locked.value)


def test_a_crash_of_the_new_process_reaches_the_caller(
    store: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(session, "_serve", crash)
    with pytest.raises(FsmountError, match="oh"):
        session.serve_in_background(MountRequest(store, place))
    log = store / "mount.log"
    assert "ZeroDivisionError" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_death_of_the_new_process_reaches_the_caller(
    store: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object) -> None:
        os._exit(9)

    monkeypatch.setattr(session, "_serve", die)
    with pytest.raises(FsmountError, match="before it was ready"):
        session.serve_in_background(MountRequest(store, place))


def test_the_caller_returns_when_the_mount_is_ready(
    store: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: MountRequest, ready: Callable[[], None]) -> None:
        assert request == MountRequest(store, place)
        ready()

    monkeypatch.setattr(session, "_serve", answer)
    session.serve_in_background(MountRequest(store, place))


def test_a_refused_mount_is_no_fuse(
    store: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("fuse_session_mount failed")

    monkeypatch.setattr(pyfuse3, "init", refuse)
    with pytest.raises(NoFuse) as caught:
        session.serve(MountRequest(store, place))
    assert caught.value.exit_code == 13


def test_the_log_can_be_sent_elsewhere(
    tmp_path: Path, store: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(session, "_serve", crash)
    monkeypatch.setenv("FSMOUNT_LOG", str(tmp_path / "here.log"))
    with pytest.raises(FsmountError):
        session.serve_in_background(MountRequest(store, place))
    assert "ZeroDivisionError" in (tmp_path / "here.log").read_text()
    assert not (store / "mount.log").exists()


def test_it_may_open_more_files_than_any_program(monkeypatch: pytest.MonkeyPatch) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    session._allow_many_files()
    assert set_to == [(max(hard, most),) * 2]

    def refuse(_: int, limits: tuple[int, int]) -> None:
        if limits[1] > hard:
            raise ValueError("not allowed to raise maximum limit")
        set_to.append(limits)

    monkeypatch.setattr(resource, "setrlimit", refuse)
    session._allow_many_files()
    assert set_to[-1] == (hard, hard)


def test_options_of_a_cache(tmp_path: Path, place: Path) -> None:
    """A store takes them before packs of it are at a URL: a line of fstab stays as it is."""
    config.make(tmp_path / "store", Disk())
    options = MountOptions(disk_cache_bytes=1 << 30, timeout_s=9)
    MountRequest(tmp_path / "store", place, options).check()

    def open_tree(path: Path, options: MountOptions) -> Tree:
        raise AssertionError

    with pytest.raises(UsageError, match="are for URLs and stores"):
        MountRequest(tmp_path, place, options, open_tree).check()
