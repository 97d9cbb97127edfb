"""Stores at a URL that are read in place, from servers that give wrong bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.errors import (
    Damaged,
)
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote import fetching
from fsmount.remote.reading import for_reading, remote_stores
from tests.support.backups import FILES, LARGE, WANTED
from tests.support.encoding import ino_of
from tests.support.remotes import (
    objects_of,
    pushed,
    read_file,
    shown_in_place,
)

pytestmark = pytest.mark.usefixtures("small_blocks")


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
