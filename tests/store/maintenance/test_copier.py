"""When the copy of the index is renewed, and when it is left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copier, copies
from fsmount.store.packs import pack
from fsmount.store.store import open_store
from tests.support.encoding import put
from tests.support.frames import png, screens


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "_REST", 0.0)


def names(root: Path) -> set[bytes]:
    """The names in the copy."""
    rows = copies.read_rows(Layout(root), str(config.read(root)["uuid"]))
    return set() if rows is None else {name for _, name, _ in rows.names}


def written(root: Path) -> tuple[int, int]:
    """Two values that change each time the copy is written."""
    found = Layout(root).names_copy.stat()
    return found.st_ino, found.st_mtime_ns


async def until(there: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not there():
            await trio.sleep(0.01)


def a_file_more(root: Path, name: bytes) -> None:
    store = open_store(root)
    put(store, name, b"")
    store.close()


async def test_a_sealed_pack_renews_the_copy_while_the_store_is_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker process makes the copy, from an index that this process has open."""
    monkeypatch.setattr(pack, "SEAL_BYTES", 1)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for number, frame in enumerate(screens(3)):
            put(store, b"%d.png" % number, png(frame))
            await store.drain()
        await until(lambda: names(root) >= {b"0.png", b"1.png"})
    opened.close()
    assert names(root) == {b"0.png", b"1.png", b"2.png"}


@pytest.mark.usefixtures("inline")
async def test_one_renewal_after_the_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a renewal comes due while the copy is made, the copy is made once more."""
    opened = open_store(root)
    real, made = copies.collect_beside, []

    async with opened.running(count=1) as store:

        def collect(path: str) -> bytes:
            made.append(path)
            if len(made) == 1:
                put(store, b"late", b"")
                store.renew_copies()
            return real(path)

        monkeypatch.setattr(copies, "collect_beside", collect)
        store.renew_copies()
        await until(lambda: len(made) == 2)
    opened.close()
    assert made == [str(opened.layout.index)] * 2


def test_a_clean_end_writes_only_what_has_changed(root: Path) -> None:
    a_file_more(root, b"one")
    before = written(root)
    for _ in range(3):
        open_store(root).close()
    assert written(root) == before
    a_file_more(root, b"two")
    assert written(root) != before
    assert names(root) == {b"one", b"two"}


@pytest.mark.parametrize("killed", [1, 2])
def test_what_was_left_out_at_a_kill_is_made_up_for(root: Path, killed: int) -> None:
    """The next opening renews a copy that a killed process did not renew.

    This holds also if openings in between change nothing and are killed, too.
    """
    a_file_more(root, b"one")
    for number in range(killed):
        child = os.fork()
        if child == 0:
            store = open_store(root)
            if number == 0:
                put(store, b"two", b"")
            os._exit(0)
        os.waitpid(child, 0)
    assert names(root) == {b"one"}
    open_store(root).close()
    assert names(root) == {b"one", b"two"}


def test_a_copy_that_was_deleted_or_damaged_comes_back(root: Path) -> None:
    a_file_more(root, b"one")
    good = Layout(root).names_copy.read_bytes()
    Layout(root).names_copy.unlink()
    open_store(root).close()
    assert names(root) == {b"one"}
    Layout(root).names_copy.write_bytes(good[:-1])
    open_store(root).close()
    assert names(root) == {b"one"}


@pytest.mark.usefixtures("inline")
async def test_a_copy_made_while_nothing_changed_is_the_one_to_compare_with(root: Path) -> None:
    """For example, a repair makes such a copy."""
    a_file_more(root, b"one")
    opened = open_store(root)
    async with opened.running(count=1) as store:
        await store.drain()
    opened.close()
    before = written(root)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        store.renew_copies()
        await until(lambda: written(root) != before and not opened._copier._failed)
    assert not opened.index.changed
    opened.close()
    index = Index(Layout(root).index, Disk())
    assert copies.is_as_left(Layout(root), index)
    with index.transaction():
        index._run("UPDATE inodes SET uid = 7 WHERE ino != 1")
    assert copies.disagreement(Layout(root), index).startswith("its copy says something else")
    index.close()


@pytest.mark.usefixtures("inline")
async def test_a_renewal_that_failed_or_was_cut_off_is_made_up_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_file_more(root, b"one")
    Layout(root).names_copy.write_bytes(b"damaged")
    tried = []

    def fail(*args: Any) -> bytes:
        tried.append(args)
        raise OSError(5, "told to fail")

    opened = open_store(root)
    with monkeypatch.context() as patch:
        patch.setattr(copies, "collect_beside", fail)
        async with opened.running(count=1) as store:
            store.renew_copies()
            await until(lambda: bool(tried))
    opened.close()
    assert names(root) == {b"one"}


def test_a_clean_end_that_could_not_write_it_leaves_it_due(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "told to fail")

    with monkeypatch.context() as patch:
        patch.setattr(copies, "update", fail)
        a_file_more(root, b"one")
    assert names(root) == set()
    open_store(root).close()
    assert names(root) == {b"one"}
