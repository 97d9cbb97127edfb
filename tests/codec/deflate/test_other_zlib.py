"""A store is read by a deflate engine that makes other bytes, as an engine with a bug would.

A reader gets an error with the reason, never wrong bytes. Raw files come back right.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fsmount.codec.deflate import engine
from fsmount.errors import Damaged
from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from tests.support.deflate_inputs import oracle
from tests.support.encoding import forget_caches, get, put
from tests.support.frames import png, screens
from tests.support.trees import make_store

PICTURES = {b"%d.png" % number: png(frame) for number, frame in enumerate(screens(3))}
FILES = PICTURES | {b"note.txt": b"some text"}


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_store(tmp_path / "store", monkeypatch)

    async def fill() -> None:
        opened = open_store(root)
        async with opened.running(count=1) as store:
            for name, data in FILES.items():
                put(store, name, data)
            await store.drain()
        assert opened.stats()["objects"]["raw"] == 1
        opened.close()

    trio.run(fill)
    return root


@pytest.fixture
def other_zlib(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[None]:
    """An engine that makes valid streams with other bytes: it works one level lower."""

    def other(raw: bytes, level: int, *params: int, **_: object) -> bytes:
        return oracle(bytes(raw), max(1, level - 1), *params)

    monkeypatch.setattr(engine, "deflate", other)
    forget_caches()
    yield
    forget_caches()


async def read_all(root: Path) -> dict[bytes, bytes | str]:
    """The bytes of each file, or the message of its error."""
    found: dict[bytes, bytes | str] = {}
    opened = open_read_store(root)
    try:
        async with opened.running(count=1) as store:
            for path, node in store.index.walk():
                try:
                    found[path] = await get(store, node.ino)
                except Damaged as error:
                    found[path] = str(error)
    finally:
        opened.close()
    return found


def test_the_engine_here_gives_the_bytes(root: Path) -> None:
    assert trio.run(read_all, root) == FILES


@pytest.mark.usefixtures("other_zlib")
def test_other_bytes_are_an_error_with_the_reason(root: Path) -> None:
    found = trio.run(read_all, root)
    assert found[b"note.txt"] == FILES[b"note.txt"]
    for name in PICTURES:
        assert "another hash" in str(found[name])


@pytest.mark.usefixtures("other_zlib")
def test_check_tells_it(root: Path) -> None:
    async def check() -> Report:
        opened = open_read_store(root)
        try:
            report = check_relations(opened)
            async with opened.running(count=1) as store:
                await check_contents(store, report, lambda count: None)
            return report
        finally:
            opened.close()

    report = trio.run(check)
    assert {name.encode() for _, _, files in report.findings for name in files} == set(PICTURES)


@pytest.mark.usefixtures("other_zlib")
def test_new_files_are_kept_raw_and_come_back(root: Path) -> None:
    new = png(screens(4, seed=9)[3], level=9)

    async def add() -> bytes:
        opened = open_store(root)
        try:
            async with opened.running(count=1) as store:
                ino = put(store, b"new.png", new)
                await store.drain()
                return await get(store, ino)
        finally:
            opened.close()

    assert trio.run(add) == new
