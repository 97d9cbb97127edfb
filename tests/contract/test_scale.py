"""Stores of very many files: statements and memory stay bounded."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT, Index
from fsmount.store.maintenance import copies
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import OpenedStore, open_store
from fsmount.store.writable_store import WritableStore
from tests.bench import synthetic

FILES, FOLDER = 20_000, 10_000
# Room for data that does not grow with the store. Its rows as objects of Python would take 10 MiB.
FEW_BYTES = 2 << 20

_T = TypeVar("_T")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("scale") / "store"
    synthetic.fill(made, FILES, FOLDER)
    return made


@pytest.fixture(name="opened")
def opened_store(path: Path) -> Iterator[OpenedStore]:
    with open_store(path) as opened:
        yield opened


@pytest.fixture
async def store(opened: OpenedStore) -> AsyncIterator[WritableStore]:
    async with opened.started() as store:
        yield store


def peak(action: Callable[[], _T]) -> tuple[int, _T]:
    """The peak of bytes that Python allocates during an action, and the result of the action."""
    tracemalloc.start()
    try:
        result = action()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@contextmanager
def statements(index: Index) -> Iterator[list[str]]:
    """A list that collects the statements executed inside the block."""
    seen: list[str] = []

    def note(_: object, sql: str, __: object) -> bool:
        seen.append(sql)
        return True

    index._db.exec_trace = note
    try:
        yield seen
    finally:
        index._db.exec_trace = None


def first_folder(store: StoreFiles) -> int:
    found = store.index.lookup(ROOT, b"00000000")
    assert found is not None
    return found.ino


def test_opening_does_not_read_the_rows(path: Path) -> None:
    used, opened = peak(lambda: open_store(path))
    opened.close()
    assert used < FEW_BYTES


async def test_a_listing_asks_for_hardly_more_than_the_kernel_takes(store: WritableStore) -> None:
    vfs = StoreFilesystem(store, store)
    fh = await vfs.opendir(first_folder(store))
    asked: list[int] = []
    children = store.index.children

    def counted(folder: int, after: int, limit: int) -> list[object]:
        rows = children(folder, after, limit)
        asked.append(len(rows))
        return list(rows)

    store.index.children = counted  # type: ignore[method-assign, assignment]
    after = count = 0
    while taken := list(itertools.islice(await vfs.readdir(fh, after), 150)):
        after, count = taken[-1][0], count + len(taken)
    assert count == FOLDER + 2
    assert sum(asked) < 1.2 * FOLDER
    assert len(asked) < 1.5 * FOLDER / 150


async def test_names_the_kernel_forgets_cost_no_statement(store: WritableStore) -> None:
    vfs = StoreFilesystem(store, store)
    fh = await vfs.opendir(first_folder(store))
    seen = [shown.ino for _, _, shown in await vfs.readdir(fh, 2)]
    for ino in seen:
        vfs.remember(ino)
    with statements(store.index) as run:
        for ino in seen[: FOLDER // 2]:
            await vfs.forget(ino, 1)
        vfs.close()
    assert len(seen) == FOLDER
    assert run == []


def test_checking_and_counting_do_not_hold_the_rows(opened: OpenedStore) -> None:
    used, report = peak(lambda: check_relations(opened))
    assert (report.objects, report.findings) == (FILES + 1, [])
    assert used < FEW_BYTES
    used, found = peak(opened.stats)
    assert found["files"] == FILES + 1
    assert used < FEW_BYTES


def test_a_finding_names_the_files_that_hang_on_it(opened: OpenedStore) -> None:
    lost = FILES // 2
    with opened.index.transaction():
        opened.index._run("UPDATE objects SET uses = 2 WHERE id = ?", (7,))
        opened.index._run("UPDATE objects SET offset = 1 << 40 WHERE id = ?", (lost,))
    findings = {what: (why, names) for what, why, names in check_relations(opened).findings}
    with opened.index.transaction():
        opened.index._run("UPDATE objects SET uses = 1 WHERE id = ?", (7,))
        opened.index._run("UPDATE objects SET offset = 0 WHERE id = ?", (lost,))
    assert findings.keys() == {"object 7", f"object {lost}"}
    # The object has one file of its own, and other objects take pixels from it.
    assert len(findings[f"object {lost}"][1]) == 1 + synthetic.NEEDS


def test_going_through_all_files_holds_few(opened: OpenedStore) -> None:
    used, count = peak(lambda: sum(1 for _ in opened.index.walk()))
    assert count == FILES + FILES // FOLDER + 1
    assert used < FEW_BYTES


async def test_a_lookup_is_one_statement(store: WritableStore) -> None:
    vfs, folder = StoreFilesystem(store, store), first_folder(store)
    name = next(synthetic.names(1))
    with statements(store.index) as run:
        shown = await vfs.lookup(folder, name)
        await vfs.getattr(shown.ino)
    assert len(run) == 2


async def test_a_listing_asks_no_file_for_its_label(store: WritableStore) -> None:
    vfs = StoreFilesystem(store, store)
    shown = await vfs.lookup(ROOT, b"one.png")
    with pytest.raises(OSError, match="not supported"):
        await vfs.getxattr(shown.ino, b"security.selinux")


def test_the_copy_of_the_rows_is_made_without_holding_them(opened: OpenedStore) -> None:
    used, wanted = peak(lambda: copies.collect(opened.index))
    # The bytes exist twice while the parts are joined.
    assert used - 2 * len(wanted) < FEW_BYTES
    rows = copies.load(wanted, opened.index.identity())
    assert len(rows.objects) == FILES + 1
