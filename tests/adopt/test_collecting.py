"""What lies below a mount is copied into it; later versions of the mount stay.

A plain folder stands for the mount.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.adopt import activity
from fsmount.adopt.activity import is_settled, leases
from fsmount.adopt.collecting import Collector
from fsmount.adopt.originals import move
from tests.support.trees import facts, make_tree


@pytest.fixture(name="below", autouse=True)
def folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(activity, "QUIET_S", 0.0)
    (tmp_path / "below").mkdir()
    (tmp_path / "mount").mkdir()
    with leases():
        yield tmp_path / "below"


@pytest.fixture(name="mount")
def folder_for_the_mount(tmp_path: Path) -> Path:
    return tmp_path / "mount"


def test_a_tree_is_copied_once(tmp_path: Path, mount: Path) -> None:
    root = make_tree(tmp_path / "tree")
    collector = Collector(mount, time.time_ns())
    found = collector.collect(root)
    assert (found.unsettled, found.conflicts, found.problems) == (0, [], [])
    assert found.copied == sum(1 for _ in root.rglob("*"))
    wanted, made = facts(root), facts(mount)
    for path in wanted:
        # A copy does not keep hard links; the copies into a folder change its mtime.
        wanted[path].pop("links", None)
        made[path].pop("links", None)
        if int(wanted[path]["mode"], 8) & 0o170000 == 0o040000:
            wanted[path].pop("mtime")
            made[path].pop("mtime")
    assert made == wanted
    assert collector.collect(root).copied == 0
    assert Collector(mount, time.time_ns()).collect(root).copied == 0


def test_a_link_in_proc_is_followed(below: Path, mount: Path) -> None:
    (below / "a").write_bytes(b"a")
    number = os.open(below, os.O_RDONLY)
    assert Collector(mount, 0).collect(Path(f"/proc/self/fd/{number}")).copied == 1
    os.close(number)


def test_an_import_that_came_too_early_is_replaced(below: Path, mount: Path) -> None:
    (mount / "a").write_bytes(b"half")
    (below / "a").write_bytes(b"the whole")
    assert Collector(mount, time.time_ns() + 10**9).collect(below).copied == 1
    assert (mount / "a").read_bytes() == b"the whole"


def test_what_was_written_through_the_mount_stays(below: Path, mount: Path) -> None:
    for name in ("a", "b", "c"):
        (below / name).write_bytes(b"old")
    (mount / "a").write_bytes(b"newer")
    (mount / "b").mkdir()
    (below / "d").mkdir()
    (below / "d" / "e").write_bytes(b"inside")
    (mount / "d").write_bytes(b"a file")
    found = Collector(mount, time.time_ns() - 10**10).collect(below)
    assert (found.copied, found.conflicts) == (1, ["a", "b", "d", "d/e"])
    assert (mount / "a").read_bytes() == b"newer"
    assert (mount / "c").read_bytes() == b"old"


def test_a_copy_that_grows_below_is_copied_again(below: Path, mount: Path) -> None:
    collector = Collector(mount, time.time_ns() - 10**10)
    for data in (b"one", b"one and two"):
        (below / "a").write_bytes(data)
        assert collector.collect(below).copied == 1
        assert (mount / "a").read_bytes() == data
    (mount / "a").write_bytes(b"by another program")
    (below / "a").write_bytes(b"one, two and three")
    assert collector.collect(below).conflicts == ["a"]
    assert list(mount.iterdir()) == [mount / "a"]


def test_a_file_with_a_writer_waits(below: Path, mount: Path) -> None:
    collector = Collector(mount, 0)
    with (below / "a").open("wb", buffering=0) as file:
        file.write(b"half, ")
        found = collector.collect(below)
        assert (found.copied, found.unsettled) == (0, 1)
        file.write(b"whole")
    assert collector.collect(below).copied == 1
    assert (mount / "a").read_bytes() == b"half, whole"


def test_a_recent_change_waits(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "QUIET_S", 1000.0)
    (below / "a").write_bytes(b"a")
    os.utime(below / "a", (0, 0))
    assert not is_settled(below / "a", (below / "a").lstat())


def test_moving_goes_on_and_replaces_nothing(below: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    for turn in (b"1", b"2", b"3"):
        (below / "day").mkdir()
        (below / "day" / "x").write_bytes(turn)
        (below / "y").write_bytes(turn)
        move(below, away)
        assert list(below.iterdir()) == []
    found = {str(path.relative_to(away)): path.read_bytes() for path in away.rglob("*.*")}
    assert found == {"day/x.2": b"2", "day/x.3": b"3", "y.2": b"2", "y.3": b"3"}
    assert (away / "day" / "x").read_bytes() == (away / "y").read_bytes() == b"1"
