"""An index with missing rows is no reason to remove files that the index does not know."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fsmount.errors import Damaged, FsmountError
from fsmount.store.index import ROOT, Index
from fsmount.store.layout import Layout
from fsmount.store.maintenance.repack import always
from fsmount.store.packs import pack
from fsmount.store.writable_store import WritableStore
from tests.crash.rot import Damage, apply
from tests.repairing import repair
from tests.support.encoding import get, put
from tests.support.repacking import delete, fill, opening

FILES = {b"%d" % number: random.Random(number).randbytes(150) for number in range(300)}
PAGE = 4096
LEAF = 0x0D

pytestmark = pytest.mark.usefixtures("inline")


async def bodies(root: Path) -> set[bytes]:
    """The bytes of all files after a repair, whatever their names."""
    await repair(root)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            files = [node for _, node in store.index.walk() if node.ino != ROOT]
            return {await get(store, node.ino) for node in files}


async def test_a_repack_of_an_index_with_misplaced_pages_costs_no_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before repack asked the index, a third of such damages cost up to 60 of 300 packed files."""
    monkeypatch.setattr(pack, "SEAL_BYTES", 40_000)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            for name, data in FILES.items():
                put(store, name, data)
            await store.drain()
    index = Layout(root).index
    whole = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    pages = range(PAGE, len(whole[index]), PAGE)
    leaves = [at for at in pages if whole[index][at] == LEAF]
    chance = random.Random(1)
    refused = 0
    for _ in range(15):
        at, other = chance.sample(leaves, 2)
        apply(index, Damage(index.name, "twice", at, other))
        try:
            with opening(root) as opened:
                async with opened.running(count=1) as store:
                    await store.repack(lambda count: None)
        except* FsmountError:
            refused += 1
        assert await bodies(root) >= set(FILES.values()), (at, other)
        for path in root.rglob("*"):
            if path.is_file() and path not in whole:
                path.unlink()
        for path, data in whole.items():
            path.write_bytes(data)
    assert refused > 5


@pytest.fixture
def contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "contradiction", lambda self: "rows are missing")


def packs(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (root / "packs").glob("*.zip")}


@pytest.mark.parametrize(
    "removing",
    [
        lambda store: store.repack(lambda count: None),
        lambda store: store.repack_in_background(always),
        lambda store: store.reclaim(1 << 60),
    ],
    ids=["repack", "background repack", "reclaim"],
)
async def test_nothing_is_dropped_or_moved(
    root: Path,
    removing: Callable[[WritableStore], Awaitable[object]],
    contradicted: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await fill(root, FILES)
    await delete(root, *list(FILES)[:200])
    with opening(root) as opened:
        before = packs(root)
        async with opened.running(count=1) as store:
            for _ in range(2):
                with suppress(Damaged):
                    await removing(store)
                    assert "rows are missing" in caplog.text
            assert len(store.index.unneeded_objects()) == 200
            assert packs(root) == before


def test_the_copy_stays_that_has_the_rows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def a_file_more(name: bytes) -> None:
        with opening(root) as store:
            put(store, name, b"")

    a_file_more(b"one")
    before = Layout(root).names_copy.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Index, "contradiction", lambda self: "rows are missing")
        a_file_more(b"two")
    assert Layout(root).names_copy.read_bytes() == before
    a_file_more(b"three")
    assert Layout(root).names_copy.read_bytes() != before
