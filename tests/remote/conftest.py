"""Fixtures of the tests of remote stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.remote import s3, sending
from tests.support.backups import fill_store
from tests.support.buckets import BUCKET, server, use_endpoint
from tests.support.proxy import Proxy, proxy
from tests.support.remotes import BLOCK, use_blocks
from tests.support.trees import make_store


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new store, without worker processes for it."""
    return make_store(tmp_path / "store", monkeypatch)


@pytest.fixture(name="filled")
def filled_store(root: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with sealed packs, an open one, a large file and a staged one."""
    fill_store(root, monkeypatch)
    return root


@pytest.fixture(name="moto", scope="session")
def moto_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of moto's server."""
    with server("moto", tmp_path_factory.mktemp("moto")) as port:
        yield port


@pytest.fixture(name="weed", scope="session")
def weed_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of SeaweedFS."""
    with server("weed", tmp_path_factory.mktemp("weed")) as port:
        yield port


@pytest.fixture(name="place")
def file_url(tmp_path: Path) -> str:
    """An empty place for objects in a folder."""
    return f"file://{tmp_path}/remote"


@pytest.fixture(name="caches")
def folder_for_caches(tmp_path: Path) -> Path:
    """A folder for what is read from URLs."""
    return tmp_path / "caches"


@pytest.fixture(params=["file", "moto", "weed"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place for objects, on each kind of server."""
    if request.param == "file":
        return f"file://{tmp_path}/remote"
    use_endpoint(monkeypatch, request.getfixturevalue(request.param))
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes that make their calls in one order."""
    monkeypatch.setattr(sending, "AT_ONCE", 1)


@pytest.fixture(name="small_blocks")
def blocks_of_four_kib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that fit stores of some 40 KB."""
    use_blocks(BLOCK, monkeypatch)


@pytest.fixture(name="between")
def proxy_to_moto(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between this process and moto, and retries that end soon."""
    monkeypatch.setattr(s3, "RETRY_S", 2)
    with proxy(moto) as running:
        use_endpoint(monkeypatch, running.port)
        yield running
