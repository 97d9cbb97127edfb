"""The store has exactly what the folder has, without files that may still change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.adopt import activity
from fsmount.adopt.activity import leases
from fsmount.adopt.copying import copy
from fsmount.store.store import open_store
from fsmount.store.transfer.tree import Summary
from tests.support.encoding import get
from tests.support.trees import export_from, facts, make_pictures, make_store, make_tree


@pytest.fixture(name="root")
def new_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(activity, "QUIET_S", 0.0)
    with leases():
        yield make_store(tmp_path / "store", monkeypatch)


async def _copied(folder: Path, root: Path) -> tuple[Summary, dict[str, bytes]]:
    """Copy a folder. Returns the summary and the files that the store has then."""
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            summary = await copy(folder, store, lambda files, count: None)
            found = {
                os.fsdecode(path): await get(store, inode.ino)
                for path, inode in store.index.walk()
                if inode.object_id is not None
            }
            return summary, found


async def test_a_tree(root: Path, tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "tree")
    summary, _ = await _copied(folder, root)
    assert summary.problems == []
    await export_from(root, tmp_path / "out")
    assert facts(tmp_path / "out") == facts(folder)


async def test_what_changed_since_is_copied_again(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    pictures = make_pictures(folder, 4)
    (folder / "day").mkdir()
    (folder / "day" / "note").write_text("deleted later")
    (folder / "a file").write_text("a folder later")
    await _copied(folder, root)
    pictures[0].rename(folder / "renamed.png")
    pictures[1].unlink()
    pictures[2].write_bytes(b"not a PNG any more")
    (folder / "day" / "note").unlink()
    (folder / "day").rmdir()
    (folder / "day").write_text("a file now")
    (folder / "a file").unlink()
    (folder / "a file").mkdir()
    (folder / "a file" / "inside").write_text("inside")
    summary, found = await _copied(folder, root)
    assert summary.problems == []
    assert found == {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_an_open_file_is_not_there(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    make_pictures(folder, 1)
    (folder / "growing").write_bytes(b"one")
    _, found = await _copied(folder, root)
    assert found["growing"] == b"one"
    with (folder / "growing").open("ab"):
        _, found = await _copied(folder, root)
    assert list(found) == ["00.png"]
