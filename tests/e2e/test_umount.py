"""Unmounting a mount that is held elsewhere, dead, busy, or of another user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.mount import unmount as unmounting
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.status import read_number
from tests.e2e.commands import Server, fsmount, refused, well
from tests.e2e.mounts import missing
from tests.support.namespaces import as_nobody, own_namespace, run_or_skip, with_fuse_for_all

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(name="other")
def second_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "other place"
    folder.mkdir()
    yield folder
    while mounted_at(folder) is not None:
        subprocess.run(["umount", "-l", folder], check=True)


def process(*command: object) -> subprocess.Popen[str]:
    """Start a process. It prints "ready" when it is ready, and ends when its stdin ends."""
    run = subprocess.Popen(
        [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    return run


def test_a_bind_mount_holds_it(root: Path, place: Path, other: Path) -> None:
    well("mount", root, place)
    (place / "a").write_bytes(b"before")
    server = Server(place)
    subprocess.run(["mount", "--bind", place, other], check=True)
    why = refused(14, "umount", place)
    assert why.startswith(f"{place} is unmounted here, but its filesystem is still mounted at")
    assert str(other) in why
    assert f"Process {server.pid} (" in why
    assert mounted_at(place) is None
    assert not server.ended(0)
    (other / "b").write_bytes(b"after")
    # Another filesystem is mounted there. It stays mounted when the server ends.
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    server.kill(signal.SIGTERM)
    mounted = mounted_at(place)
    assert mounted is not None
    assert mounted.fstype == "tmpfs"
    subprocess.run(["umount", place], check=True)
    subprocess.run(["umount", other], check=True)
    well("mount", root, place)
    assert [(place / name).read_bytes() for name in "ab"] == [b"before", b"after"]
    well("umount", place)


def test_it_ends_with_the_last_mount(root: Path, place: Path, other: Path) -> None:
    well("mount", root, place)
    server = Server(place)
    subprocess.run(["mount", "--bind", place, other], check=True)
    refused(14, "umount", "--now", place)
    assert well("umount", other) == ""
    assert server.ended(0)


def test_another_mount_namespace_holds_it(root: Path, place: Path) -> None:
    well("mount", root, place)
    server = Server(place)
    with process(*own_namespace(keep=place), "sh", "-c", "echo ready; cat") as run:
        why = refused(14, "umount", place)
        assert f"(seen by process {run.pid} (" in why
        assert not server.ended(0)
        run.communicate()
    assert server.ended(30)


def test_a_dead_mount_with_somebody_inside(root: Path, place: Path) -> None:
    well("mount", root, place)
    with process("sh", "-c", f"cd '{place}' && echo ready; cat") as run:
        Server(place).kill(signal.SIGKILL)
        done = fsmount("umount", place)
        assert (done.returncode, done.stdout) == (0, "")
        assert "had died; the folder is free again" in done.stderr
        assert f"process {run.pid} (" in done.stderr
        assert mounted_at(place) is None
        run.communicate()
    well("mount", root, place)
    well("umount", place)


def test_a_dead_mount_that_is_held_elsewhere(root: Path, place: Path, other: Path) -> None:
    well("mount", root, place)
    subprocess.run(["mount", "--bind", place, other], check=True)
    Server(place).kill(signal.SIGKILL)
    for folder in (place, other):
        assert fsmount("umount", folder).returncode == 0
        assert mounted_at(folder) is None


def test_it_dies_while_it_is_waited_for(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    well("mount", root, place)
    server = Server(place)
    told: list[str] = []
    monkeypatch.setattr(unmounting, "_drain", lambda mounted, _: die(mounted))

    def die(mounted: Mounted) -> None:
        server.kill(signal.SIGKILL)
        read_number(mounted, "staged")

    unmounting.unmount(place, tell=told.append)
    assert mounted_at(place) is None
    assert "had died" in told[0]


def test_who_keeps_it_busy(root: Path, place: Path, tmp_path: Path) -> None:
    well("mount", root, place)
    (place / "folder").mkdir()
    with process("sh", "-c", f"cd '{place}/folder' && echo ready; cat") as run:
        why = refused(12, "umount", place)
        assert f"it is busy: process {run.pid} (sh)" in why
        run.communicate()
    subprocess.run(["mount", "-t", "tmpfs", "none", place / "folder"], check=True)
    assert f"it is busy: there are mounts in it: {place}/folder" in refused(12, "umount", place)
    subprocess.run(["umount", place / "folder"], check=True)
    well("umount", place)


# Mounts of a user


@pytest.fixture(name="public")
def folder_of_nobody() -> Iterator[Path]:
    if not shutil.which("setpriv") or not shutil.which("fusermount3"):
        pytest.skip("needs setpriv and fusermount3")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "mnt").mkdir()
        for entry in (path, path / "mnt"):
            os.chown(entry, 65534, 65534)
        yield path


SCRIPT = """
set -e; "$@"
"$PYTHON" -m fsmount umount "$MOUNT" && echo "unmounted"
"""


def test_root_unmounts_what_a_user_mounted(public: Path) -> None:
    """Root may not look into the mount, but umount still waits until all files are encoded."""
    work = (
        '"$PYTHON" -m fsmount init "$STORE" && "$PYTHON" -m fsmount mount "$STORE" "$MOUNT"'
        ' && echo hello > "$MOUNT/a"'
    )
    start = [*with_fuse_for_all(public), "bash", "-c", SCRIPT, "bash"]
    done = run_or_skip(
        [*start, *as_nobody(), "bash", "-c", work],
        PYTHON=sys.executable,
        STORE=str(public / "store"),
        MOUNT=str(public / "mnt"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nunmounted\n")
    assert '"staged": 0' in well("stats", "--json", public / "store")


def test_nobody_unmounts_what_root_mounted(root: Path, place: Path) -> None:
    well("mount", root, place)
    place.parent.chmod(0o755)
    done = run_or_skip([*as_nobody(), sys.executable, "-m", "fsmount", "umount", str(place)])
    assert done.returncode == 12
    assert "it is a mount of user root; only that user and root can unmount it" in done.stderr
    well("umount", place)
