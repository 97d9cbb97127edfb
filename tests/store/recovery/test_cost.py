"""The cost of check and repair grows with the number of files, not with its square."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index, Inode, Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance.copies import IndexRows
from fsmount.store.recovery import scan, write
from fsmount.store.recovery.check import check_relations
from fsmount.store.recovery.merge import NewIndex, plan_removal
from fsmount.store.store import open_read_store

FEW, MANY = 250, 1000
# MANY is four times FEW. A cost that grows with the square is sixteen times as large.
MOST = 6
_STEPS = 50


def rows(count: int, *, staged: bool) -> IndexRows:
    """Files with an object each, ten in a pack, or with a staged file each."""
    made = IndexRows(1, count + 1)
    made.inodes.append(Inode(1, stat.S_IFDIR | 0o755, 0, 0, 2, 0, 0, 1, 1, 1, None, None, None))
    for number in range(1, count + 1):
        ino = number + 1
        body = None if staged else number
        token = 1000 + number if staged else None
        file = Inode(ino, stat.S_IFREG | 0o644, 0, 0, 1, 5, 0, 1, 1, 1, body, token, None)
        made.inodes.append(file)
        made.names.append((1, b"%06d.png" % number, ino))
        if not staged:
            place = 1 + number // 10, 100 * (number % 10), 100
            made.objects.append(Object(number, "raw", *place, 5, os.urandom(32), 0))
    return made


def store_of(root: Path, count: int, *, staged: bool = False) -> Layout:
    """A store whose index has `count` files, and whose folders have none of their content."""
    config.make(root, Disk())
    layout = Layout(root)
    packs = {} if staged else dict.fromkeys(range(1, 2 + count // 10), 1000)
    plan = NewIndex(rows(count, staged=staged), packs, (), ())
    write.replace_index(layout, Disk(), str(config.read(root)["uuid"]), plan)
    return layout


def steps(index: Index, work: Callable[[], object]) -> int:
    """The steps of SQLite's machine that some work takes, in units of _STEPS."""
    count = [0]

    def note() -> bool:
        count[0] += 1
        return False

    index._db.set_progress_handler(note, _STEPS)
    work()
    index._db.set_progress_handler(None)
    return count[0]


def check(store: StoreFiles, count: int) -> None:
    """Check the store. Each file is named: in a finding of its own, or below a missing pack."""
    findings = check_relations(store).findings
    named = {finding.what for finding in findings}.union(*(each.files for each in findings))
    assert {f"{number:06d}.png" for number in range(1, count + 1)} <= named


@pytest.mark.parametrize("staged", [False, True])
def test_check_of_a_store_that_lost_everything(tmp_path: Path, staged: bool) -> None:
    costs = []
    for count in (FEW, MANY):
        store_of(tmp_path / f"{count}", count, staged=staged)
        with open_read_store(tmp_path / f"{count}") as store:
            costs.append(steps(store.index, lambda store=store, n=count: check(store, n)))  # type: ignore[misc]
    assert costs[0] > 10
    assert costs[1] < MOST * costs[0]


@pytest.mark.parametrize("staged", [False, True])
def test_a_new_index(tmp_path: Path, staged: bool) -> None:
    """IndexRows are put in and counted."""
    costs = []
    for count in (FEW, MANY):
        layout = store_of(tmp_path / f"{count}", count, staged=staged)
        index = Index(layout.index, Disk())
        costs.append(steps(index, index.recount))
        assert index.wrong_uses() == index.wrong_links() == []
        index.close()
    assert costs[0] > 10
    assert costs[1] < MOST * costs[0]


def test_the_removal_of_lost_files(tmp_path: Path) -> None:
    costs = []
    for count in (FEW, MANY):
        layout = store_of(tmp_path / f"{count}", count)
        index = Index(layout.index, Disk())
        half = set(range(1, count // 2 + 1))

        def remove(layout: Layout = layout, index: Index = index, half: set[int] = half) -> None:
            facts = scan.scan_index(layout, index, half)
            write.drop_lost(layout, index, Disk(), plan_removal(facts, half))

        costs.append(steps(index, remove))
        assert len(list(index.all_objects())) == len(list(index.names())) == count - len(half)
        assert index.wrong_uses() == index.wrong_links() == []
        index.close()
    assert costs[0] > 10
    assert costs[1] < MOST * costs[0]
