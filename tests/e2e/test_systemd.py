"""A mount as a service of systemd with Type=notify. A socket stands for systemd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from tests.e2e.mounts import missing
from tests.e2e.test_cli import mountpoint, store_folder, well  # noqa: F401
from tests.support.frames import png, screens
from tests.support.systemd import NotifySocket

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(name="systemd")
def _systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path)
    yield made
    made.close()


def until(systemd: NotifySocket, message: str) -> list[str]:
    """All messages up to this one."""
    found = [systemd.next()]
    while found[-1] != message:
        found.append(systemd.next())
    return found


@pytest.mark.parametrize("how", ["SIGTERM", "umount"])
def test_a_service(root: Path, place: Path, systemd: NotifySocket, how: str) -> None:
    command = [sys.executable, "-m", "fsmount", "mount", "-f", str(root), str(place)]
    environment = os.environ | {"NOTIFY_SOCKET": systemd.variable}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as service:
        try:
            until(systemd, "READY=1")
            # It answers now, and not only soon.
            assert mounted_at(place) is not None
            (place / "a.png").write_bytes(png(screens(1)[0]))
            if how == "umount":
                # Both may have been told: files to encode, and that none is left.
                until(systemd, "STATUS=mounted, all files are encoded")
                subprocess.run(["umount", place], check=True)
            else:
                service.send_signal(signal.SIGTERM)
            until(systemd, "STOPPING=1")
            assert service.wait(60) == 0
        finally:
            service.kill()
    assert mounted_at(place) is None
    assert set(systemd.rest()) <= {"STOPPING=1"}
    well("check", root, "--full")


def test_a_service_that_fails_is_never_ready(
    root: Path, place: Path, systemd: NotifySocket
) -> None:
    (place / "file").touch()
    command = [sys.executable, "-m", "fsmount", "mount", "-f", str(root), str(place)]
    environment = os.environ | {"NOTIFY_SOCKET": systemd.variable}
    assert subprocess.run(command, env=environment, check=False, timeout=60).returncode == 12
    assert systemd.rest() == []


def test_a_mount_in_the_background_tells_nothing(
    root: Path, place: Path, systemd: NotifySocket
) -> None:
    """systemd watches the process that started it, not the one that serves."""
    well("mount", root, place, NOTIFY_SOCKET=systemd.variable)
    well("umount", place)
    assert systemd.rest() == []
