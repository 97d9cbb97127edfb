"""Reading the kernel's mount tables; paths may hold any bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fsmount.mount import mountpoint
from fsmount.mount.mount_table import Mounted, read
from tests.support.names import ODD_NAMES


def escaped(name: bytes) -> bytes:
    """A path as the kernel writes it in a mount table (proc_pid_mountinfo(5))."""
    return re.sub(rb"[ \t\n\\#]", lambda found: b"\\%03o" % ord(found[0]), name)


def line(number: int, place: bytes, source: bytes, options: bytes = b"rw") -> bytes:
    fields = b"%d 28 0:%d / %s rw,nosuid shared:%d" % (number, number, escaped(place), number)
    return fields + b" - fuse.fsmount %s %s\n" % (escaped(source), options)


@pytest.fixture(name="table")
def odd_table(tmp_path: Path) -> Path:
    """A mount table: for each odd name a mountpoint and a store with that name."""
    path = tmp_path / "mountinfo"
    lines = [line(at, b"/m/" + name, b"/s/" + name) for at, name in enumerate(ODD_NAMES)]
    path.write_bytes(b"".join(lines))
    return path


def test_each_line_is_one_mount(table: Path) -> None:
    found = [(os.fsencode(one.mountpoint), os.fsencode(one.source)) for one in read(table)]
    assert found == [(b"/m/" + name, b"/s/" + name) for name in ODD_NAMES]
    assert [one.device for one in read(table)] == [f"0:{at}" for at in range(len(ODD_NAMES))]
    assert {one.fstype for one in read(table)} == {"fuse.fsmount"}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_mount_is_found(table: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    monkeypatch.setattr(mountpoint, "_MOUNTS", table)
    found = mountpoint.mounted_at(Path(os.fsdecode(b"/m/" + name)))
    assert found is not None
    assert os.fsencode(found.source) == b"/s/" + name
    assert mountpoint.mounted_at(Path(os.fsdecode(b"/m/" + name + b"x"))) is None


def test_the_upper_of_two_mounts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(line(1, b"/m", b"lower") + line(2, b"/m", b"upper"))
    monkeypatch.setattr(mountpoint, "_MOUNTS", table)
    found = mountpoint.mounted_at(Path("/m"))
    assert found is not None
    assert found.source == "upper"


def test_options_and_empty_sources(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(line(1, b"/m", b"", b"rw,user_id=1000,group_id=x") + b"\nnonsense\n")
    (found,) = read(table)
    assert isinstance(found, Mounted)
    assert found.source == ""
    assert (found.number("user_id"), found.number("group_id")) == (1000, None)
    assert found.number("rw") is None


def test_the_table_of_this_process() -> None:
    assert any(found.mountpoint == Path("/proc") for found in read(Path("/proc/self/mountinfo")))
