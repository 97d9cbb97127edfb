"""A mount as a service of systemd: what it tells (a socket stands for systemd), and a real service.

The real one is a service manager of a user, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from tests.e2e.commands import well
from tests.e2e.mounts import PROGRAM, missing
from tests.support.frames import png, screens
from tests.support.namespaces import own_namespace
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
            told = until(systemd, "READY=1")
            # It answers now, and not only soon.
            assert mounted_at(place) is not None
            (place / "a.png").write_bytes(png(screens(1)[0]))
            if how == "umount":
                while os.getxattr(place, "user.fsmount.staged") != b"0":
                    time.sleep(0.05)
                subprocess.run(["umount", place], check=True)
            else:
                service.send_signal(signal.SIGTERM)
            told += until(systemd, "STOPPING=1")
            assert "STATUS=mounted, all files are encoded" in told
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


# -- a real service manager

_MANAGER = Path("/lib/systemd/systemd")
# A manager takes all processes of its control group as its own. So it gets a group for itself.
_KEEP = """
mkdir "$1" && echo $$ > "$1/cgroup.procs" && shift || exit
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$@"
"""


class User:
    """A service manager for the units below a folder."""

    def __init__(self, folder: Path) -> None:
        self._group = own_group() / f"fsmount-test-{os.getpid()}"
        self.program = folder / "bin" / "fsmount"
        self.program.parent.mkdir()
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)
        (folder / "run").mkdir(mode=0o700)
        self._variables = os.environ | {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "SYSTEMD_LOG_TARGET": "console",
        }
        manager = [str(self._group), str(_MANAGER), "--user"]
        command = [*own_namespace(), "sh", "-c", _KEEP, "sh", *manager]
        with (folder / "manager.log").open("w") as log:
            self._manager = subprocess.Popen(command, env=self._variables, stdout=log, stderr=log)

    def works(self) -> bool:
        for _ in range(100):
            if self.call("systemctl", "--user", "is-system-running").stdout.strip() == "running":
                return True
            if self._manager.poll() is not None:
                return False
            time.sleep(0.1)
        return False

    def call(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace."""
        inside = ["nsenter", f"--target={self._manager.pid}", "--mount", "--root", "--"]
        return subprocess.run(
            [*inside, *map(str, command)],
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def show(self, unit: str, name: str) -> str:
        return self.call("systemctl", "--user", "show", "--value", "-p", name, unit).stdout.strip()

    def at(self, path: Path) -> Path:
        """A path of the namespace as this process sees it."""
        return Path(f"/proc/{self._manager.pid}/root{path}")

    def end(self) -> None:
        self.call("systemctl", "--user", "exit")
        try:
            self._manager.wait(30)
        except subprocess.TimeoutExpired:
            self._manager.kill()
            self._manager.wait()
        for group in sorted(self._group.rglob("*/"), reverse=True):
            if group.is_dir():
                group.rmdir()
        # Some managers remove their group themselves.
        with suppress(FileNotFoundError):
            self._group.rmdir()


def own_group() -> Path:
    """The control group of this process, in the hierarchy that systemd uses."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd":
            return Path(f"/sys/fs/cgroup/systemd{path}")
        if number == "0" and not Path("/sys/fs/cgroup/systemd").exists():
            return Path(f"/sys/fs/cgroup{path}")
    return Path("/nowhere")


@pytest.fixture(name="user")
def _user(tmp_path: Path) -> Iterator[User]:
    if os.geteuid() != 0 or not _MANAGER.exists() or shutil.which("systemctl") is None:
        pytest.skip("needs root and systemd")
    made = User(tmp_path)
    try:
        if not made.works():
            pytest.skip("no service manager runs here")
        yield made
    finally:
        made.end()


def until_it_is(user: User, unit: str, name: str, wanted: str) -> None:
    for _ in range(300):
        if user.show(unit, name) == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(user.call("systemctl", "--user", "status", unit).stdout)


def test_a_unit_of_setup(user: User, root: Path, tmp_path: Path) -> None:
    place, unit = tmp_path / "my shots", "fsmount@my-shots.service"
    done = user.call(user.program, "setup", root, place)
    assert (done.returncode, done.stderr) == (0, "")
    # It is started when the mount answers.
    assert user.show(unit, "ActiveState") == "active"
    assert mounted(user, place)
    (user.at(place) / "a.png").write_bytes(png(screens(1)[0]))
    until_it_is(user, unit, "StatusText", "mounted, all files are encoded")

    # After a crash it is mounted again, also while a program has a file of the dead mount open.
    pid = user.show(unit, "MainPID")
    opened = os.open(user.at(place) / "a.png", os.O_RDONLY)
    os.kill(int(pid), signal.SIGKILL)
    until_it_is(user, unit, "NRestarts", "1")
    until_it_is(user, unit, "ActiveState", "active")
    with pytest.raises(OSError, match="not connected"):
        os.close(opened)
    assert user.show(unit, "MainPID") != pid
    assert (user.at(place) / "a.png").read_bytes() == png(screens(1)[0])

    done = user.call(user.program, "setup", "--remove", root, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert not mounted(user, place)
    assert user.show(unit, "Result") == "success"
    assert list((tmp_path / "config").rglob("*.service")) == []
    well("check", root, "--full")


def test_a_shot_while_the_mount_is_away(user: User, root: Path, tmp_path: Path) -> None:
    """The timer's service keeps the shot, and the start of the mount puts it in."""
    place, unit, shot = tmp_path / "shots", "fsmount@shots.service", "fsmount-shot@shots.service"
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\nprintf picture > "$1"\n')
    tool.chmod(0o755)
    assert user.call(user.program, "setup", "--capture", "--no-start", root, place).returncode == 0
    user.call("systemctl", "--user", "daemon-reload")
    user.call("systemctl", "--user", "set-environment", "DISPLAY=:7", f"FSMOUNT_TOOL={tool}")
    # The store is away, so the mount fails.
    away = root.with_name("away")
    root.rename(away)
    user.call("systemctl", "--user", "start", shot)
    assert user.show(shot, "Result") == "success"
    spool = tmp_path / ".local/state/fsmount/spool-shots"
    (kept,) = os.listdir(spool)
    assert os.listdir(user.at(place)) == []
    user.call("systemctl", "--user", "stop", unit)
    away.rename(root)
    done = user.call("systemctl", "--user", "start", unit)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(user.at(place)) == [kept]
    assert os.listdir(spool) == []
    user.call("systemctl", "--user", "start", shot)
    assert len(os.listdir(user.at(place))) == 2
    assert user.call(user.program, "setup", "--remove", root, place).returncode == 0
    assert not mounted(user, place)


def mounted(user: User, place: Path) -> bool:
    return user.call("mountpoint", "-q", place).returncode == 0
