"""Profiles of hypothesis (HYPOTHESIS_PROFILE=long searches longer), and shared fixtures."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.index import Index
from fsmount.store.ingest import committer, large, retries
from tests.support.calls import mount
from tests.support.encoding import Inline, forget_caches
from tests.support.fake_store import FakeStore
from tests.support.frames import FlakyDisk
from tests.support.hang_guard import guarded
from tests.support.namespaces import leave_mounts_of_others

# A shell that starts the tests in the background makes them ignore SIGINT and SIGQUIT; nohup(1)
# makes them ignore SIGHUP. Their child processes would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Some tests list all mounts, or unmount them; others take what is mounted elsewhere for a fault.
leave_mounts_of_others()

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("default"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores without worker processes and long waits."""
    forget_caches()

    async def at_once(_: Callable[..., Any]) -> None:
        return

    monkeypatch.setattr(Inline, "before", staticmethod(at_once))
    monkeypatch.setattr(store_module, "Workers", Inline)
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.01)
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.01)


@pytest.fixture
def disk() -> FlakyDisk:
    """A disk that can be told to fail."""
    return FlakyDisk()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a new store."""
    config.make(tmp_path / "store", FlakyDisk())
    return tmp_path / "store"


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 5,000 bytes are large."""
    monkeypatch.setattr(large, "KEEP_BYTES", 5000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    """A store for the tests of the mount."""
    made = FakeStore(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def vfs(store: FakeStore) -> StoreFilesystem:
    """The filesystem of the store."""
    return mount(store)


@pytest.fixture
def index(tmp_path: Path, disk: FlakyDisk) -> Iterator[Index]:
    """A new index. After the test its integrity is checked."""
    Index.make(tmp_path / "index.sqlite", identity="x", uid=5, gid=6, now_ns=100)
    opened = Index(tmp_path / "index.sqlite", disk)
    yield opened
    assert opened.integrity() == []
    opened.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test hang, with its fixtures, unless a person looks at it in a debugger."""
    if item.config.getoption("usepdb"):
        return (yield)
    factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
    with guarded(item.nodeid, factory.getbasetemp()):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write lone surrogates of file names as escapes: another process cannot send them to us."""
    report = yield
    report.sections = [(name, _encodable(text)) for name, text in report.sections]
    if report.longrepr is not None and str(report.longrepr) != _encodable(str(report.longrepr)):
        report.longrepr = _encodable(str(report.longrepr))
    return report


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
