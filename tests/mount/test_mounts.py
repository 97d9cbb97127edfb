"""The list of mounts, and what each one reports."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fsmount.errors import BadMountpoint
from fsmount.mount import mountpoint, mounts
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mounts import MountStatus, State
from fsmount.mount.status import DeadMountError

TABLE = """\
22 28 0:21 / /proc rw,nosuid shared:14 - proc proc rw
90 28 0:50 / /a rw,nosuid - fuse.fsmount /store\\040a rw,user_id=0
91 28 0:51 / /tmp rw - tmpfs tmpfs rw
92 28 0:52 / /b ro,nosuid - fuse.fsmount /b.store ro,user_id=1000
93 28 0:53 / /c rw - fuse.fsmount /lower rw,user_id=0
94 28 0:54 / /c rw - fuse.fsmount /upper rw,user_id=0
95 28 0:55 / /d rw - fuse.fsmount /hidden rw,user_id=0
96 28 0:56 / /d rw - tmpfs tmpfs rw
97 28 0:50 / /e ro,nosuid - fuse.fsmount /store\\040a rw,user_id=0
"""
MOUNTED = Mounted(Path("/a"), "fuse.fsmount", "/a.store", "0:50", ("rw", "user_id=1000"))


def test_the_topmost_mounts_of_fsmount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table").write_text(TABLE)
    monkeypatch.setattr(mountpoint, "_MOUNTS", tmp_path / "table")
    assert [
        (str(one.mountpoint), one.source, one.read_only) for one in mountpoint.all_mounts()
    ] == [
        ("/a", "/store a", False),
        ("/b", "/b.store", True),
        ("/c", "/upper", False),
        # A bind mount of /a that was made read-only.
        ("/e", "/store a", True),
    ]


def test_a_mount_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"pid": 12, "staged": 3}
    monkeypatch.setattr(mounts, "read_number", lambda mounted, name: answers[name])
    assert mounts.status(MOUNTED) == MountStatus(State.SERVED, 12, 3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DeadMountError(), MountStatus(State.DEAD)),
        (
            BadMountpoint("/a", reason="it is a mount of user x"),
            MountStatus(State.UNREACHABLE, reason="it is a mount of user x"),
        ),
    ],
)
def test_a_mount_that_does_not(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: MountStatus
) -> None:
    def fail(mounted: Mounted, name: str) -> int:
        raise error

    monkeypatch.setattr(mounts, "read_number", fail)
    assert mounts.status(MOUNTED) == expected


def test_a_mount_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(mounted: Mounted, name: str) -> int:
        release.wait()
        return os.getpid()

    monkeypatch.setattr(mounts, "read_number", hang)
    monkeypatch.setattr(mounts, "_ANSWER_S", 0.01)
    try:
        assert mounts.status(MOUNTED) == MountStatus(State.SILENT)
    finally:
        release.set()
