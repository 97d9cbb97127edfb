"""A store that the kernel mounts when somebody looks into its folder.

While a program waits for such a mount, the kernel lets all others wait that name the folder, except
the process group that mounts. `contrib/dev/boot-try` does the same with a booted systemd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.commands import fsmount
from tests.e2e.mounts import missing
from tests.support.namespaces import own_namespace
from tests.support.paths import CHECKOUT, DATA

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        "autofs" not in Path("/proc/filesystems").read_text(encoding="ascii").split(),
        reason="the kernel has no autofs",
    ),
]
_SECONDS = 60


@contextmanager
def automount(folder: Path, *command: object) -> Iterator[list[str]]:
    """Let `command` mount something at the folder on first use.

    Yields the start of a command that sees the mount: it is in a mount namespace of its own.
    """
    arguments = [sys.executable, "-m", "tests.support.automount", folder, *command]
    daemon = subprocess.Popen(
        [*own_namespace(), *map(str, arguments)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    try:
        assert daemon.stdout.readline() == b"ready\n"
        yield ["nsenter", f"--target={daemon.pid}", "--mount", "--root", f"--wd={CHECKOUT}"]
    finally:
        # Without its daemon the kernel refuses what waits for the folder.
        daemon.stdin.close()
        try:
            daemon.wait(_SECONDS)
        finally:
            daemon.kill()
            daemon.stdout.close()


def call(inside: list[str], *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*inside, "--", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    assert fsmount("init", store).returncode == 0
    return store


def test_the_first_look_mounts(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    picture = sorted((DATA / "desk").glob("*.png"))[0]
    helper = [sys.executable, "-m", "fsmount", "mount.fsmount", store, place, "-o", "rw"]
    with automount(place, *helper) as inside:
        copied = call(inside, "cp", picture, place / "a.png")
        assert copied.returncode == 0, copied.stderr
        assert call(inside, "cmp", picture, place / "a.png").returncode == 0
        ended = call(inside, sys.executable, "-m", "fsmount", "umount", place)
        assert ended.returncode == 0, ended.stderr
        # The next look mounts it again.
        assert call(inside, "ls", place).stdout == "a.png\n"
        assert call(inside, sys.executable, "-m", "fsmount", "umount", place).returncode == 0
    assert fsmount("check", "--full", store).returncode == 0


def test_a_mount_that_fails_ends_the_wait(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    shutil.rmtree(store)
    helper = [sys.executable, "-m", "fsmount", "mount.fsmount", store, place, "-o", "rw"]
    with automount(place, *helper) as inside:
        assert "No such file" in call(inside, "ls", place).stderr
