"""mount(8), umount(8) and fstab with the types fsmount and fuse.fsmount.

mount(8) looks for its helpers in /sbin only. So each test has a mount namespace of its own, with
overlays on /sbin and /etc that hold the links and settings: nothing outside sees them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import fsmount
from tests.e2e.mounts import PROGRAM, missing
from tests.support.namespaces import own_namespace
from tests.support.paths import CHECKOUT

# Waits in the namespace. The shell gets the folder for the overlay.
_KEEP = """
set -e
mount -t tmpfs tmpfs "$1"
for folder in /usr/sbin /etc; do
    mkdir -p "$1/upper$folder" "$1/work$folder"
    mount -t overlay overlay \
        -o lowerdir=$folder,upperdir="$1/upper$folder",workdir="$1/work$folder" $folder
done
echo ready
exec sleep 1000
"""
AUTOMOUNT = "noauto,x-systemd.automount,x-systemd.idle-timeout=10min,allow_other"
LINKS = {"fuse.fsmount": "mount.fuse.fsmount", "fsmount": "mount.fsmount"}

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class System:
    """A mount namespace: a store, a folder to mount on, a fstab, and the program in PATH."""

    def __init__(self, folder: Path) -> None:
        self.store, self.place = folder / "the store", folder / "place"
        self.place.mkdir()
        self.fstab = folder / "fstab"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.program = self.programs / "fsmount"
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)
        overlay = folder / "overlay"
        overlay.mkdir()
        assert fsmount("init", self.store).returncode == 0
        command = [*own_namespace(), "sh", "-c", _KEEP, "sh"]
        self._keeper = subprocess.Popen([*command, overlay], stdout=subprocess.PIPE)
        assert self._keeper.stdout is not None
        self.works = self._keeper.stdout.readline() == b"ready\n"

    def link(self, name: str) -> None:
        """Make a helper in /sbin, as `fsmount setup --system` does."""
        self.run("ln", "-s", self.program, f"/sbin/{name}")

    def write_fstab(self, fstype: str, options: str) -> None:
        store = str(self.store).replace(" ", "\\040")
        self.fstab.write_text(f"{store} {self.place} {fstype} {options} 0 0\n")

    def inside(self) -> list[str]:
        """The start of a command that runs in the namespace.

        With its root: that of the namespace is another one if these tests run in a chroot.
        """
        return ["nsenter", f"--target={self._keeper.pid}", "--mount", "--root", f"--wd={CHECKOUT}"]

    def call(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace."""
        return subprocess.run(
            [*self.inside(), "--", *map(str, command)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}"},
        )

    def run(self, *command: object) -> str:
        done = self.call(*command)
        assert (done.returncode, done.stderr) == (0, ""), (command, done)
        return done.stdout

    def options(self) -> set[str]:
        """The options that the kernel shows for the mount; none if nothing is mounted."""
        found = self.call("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "--mountpoint", self.place)
        if found.returncode:
            return set()
        fstype, options = found.stdout.split(maxsplit=1)
        assert fstype == "fuse.fsmount"
        return set(options.strip().split(","))

    def write(self, text: str) -> subprocess.CompletedProcess[str]:
        return self.call("sh", "-c", f"printf {text} > '{self.place}/file'")

    def read(self) -> str:
        return self.run("cat", self.place / "file")

    def pid(self) -> int:
        """The process that serves the mount."""
        inside = Path(f"/proc/{self._keeper.pid}/root{self.place}")
        return int(os.getxattr(inside, "user.fsmount.pid"))

    def umount(self) -> None:
        """Unmount by umount(8), and wait until the store is closed."""
        pid = self.pid()
        self.run("umount", self.place)
        for _ in range(200):
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.05)
        raise AssertionError("the process goes on")

    def end(self) -> None:
        if self.options():
            self.call("umount", "-l", self.place)
        self._keeper.send_signal(signal.SIGTERM)
        self._keeper.wait()


@pytest.fixture(name="system")
def _system(tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path)
    try:
        if not made.works:
            pytest.skip("no mount namespace with an overlay here")
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("fstype", LINKS)
def test_a_line_of_fstab(system: System, fstype: str) -> None:
    system.link(LINKS[fstype])
    system.write_fstab(fstype, AUTOMOUNT)
    mount = ("mount", "-T", system.fstab)
    assert system.run(*mount, "-a") == "", "noauto"
    assert system.options() == set()
    system.run(*mount, system.place)
    assert system.options() >= {"rw", "nosuid", "nodev", "allow_other", "relatime"}
    assert system.write("one").returncode == 0
    system.umount()
    assert system.options() == set()
    system.run(*mount, system.store)
    assert system.read() == "one"
    system.umount()


def test_a_url_in_fstab(system: System, tmp_path: Path) -> None:
    """mount(8) hands it over as it is, with and without the helper in /sbin."""
    url = f"file://{tmp_path}/remote%20place"
    (tmp_path / "words").write_text("one")
    assert fsmount("import", tmp_path / "words", system.store).returncode == 0
    assert fsmount("push", "-q", system.store, url).returncode == 0
    options = f"noauto,ro,_netdev,allow_other,cache=10M,cache_dir={tmp_path}/caches"
    system.fstab.write_text(f"{url} {system.place} fuse.fsmount {options} 0 0\n")
    system.link("mount.fuse.fsmount")
    system.run("mount", "-T", system.fstab, system.place)
    assert system.options() >= {"ro", "allow_other"}
    assert system.run("cat", system.place / "words") == "one"
    assert url in system.run("findmnt", "-n", "-o", "SOURCE", "--mountpoint", system.place)
    system.umount()


def test_mount_all_mounts_once(system: System) -> None:
    system.link("mount.fuse.fsmount")
    system.write_fstab("fuse.fsmount", "defaults,nofail,_netdev,comment=shots")
    for _ in range(2):
        system.run("mount", "-T", system.fstab, "-a")
        assert system.call("mount").stdout.count(str(system.place)) == 1
    system.umount()


def test_remount(system: System) -> None:
    system.link("mount.fuse.fsmount")
    system.write_fstab("fuse.fsmount", "noauto,uid=7,umask=022")
    mount = ("mount", "-T", system.fstab)
    system.run(*mount, system.place)
    assert system.write("one").returncode == 0
    server = system.pid()
    system.run(*mount, "-o", "remount,ro,noexec", system.place)
    assert system.options() >= {"ro", "nosuid", "nodev", "noexec"}
    assert "Read-only file system" in system.write("two").stderr
    assert system.read() == "one"
    # Without fstab, mount(8) takes the line from the table of the kernel.
    system.run("mount", "-o", "remount,rw,exec,sync", system.place)
    assert system.options() >= {"rw", "nosuid", "nodev", "sync"}
    assert "noexec" not in system.options()
    assert system.write("two").returncode == 0
    assert system.pid() == server
    system.umount()


def test_what_cannot_be_remounted(system: System) -> None:
    system.link("mount.fuse.fsmount")
    remount = ("mount", "-t", "fuse.fsmount", "-o")
    done = system.call(*remount, "remount,ro", system.store, system.place)
    assert done.returncode == 32
    assert done.stderr == f"fsmount: {system.place}: no fsmount is mounted there\n"
    system.run(*remount, "ro", system.store, system.place)
    done = system.call("mount", "-o", "remount,rw", system.place)
    assert done.returncode == 32
    assert "it was mounted read-only; unmount it" in done.stderr
    assert "ro" in system.options()
    system.umount()
    system.run(*remount, "rw", system.store, system.place)
    with subprocess.Popen(
        [*system.inside(), "sh", "-c",
         f"exec 3> '{system.place}/open'; echo open; exec sleep 100"],
        stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        done = system.call("mount", "-o", "remount,ro", system.place)
        writer.kill()
    assert done.returncode == 32
    assert "busy" in done.stderr
    assert "rw" in system.options()
    system.umount()


def test_options_of_the_kernel(system: System) -> None:
    system.link("mount.fsmount")
    options = "ro,noexec,nodev,nosuid,noatime,user,group,dev,suid"
    system.run("mount", "-t", "fsmount", "-o", options, system.store, system.place)
    assert system.options() >= {"ro", "noexec", "nosuid", "nodev"}
    system.umount()


def test_errors_are_told(system: System, tmp_path: Path) -> None:
    system.link("mount.fsmount")
    mount = ("mount", "-t", "fsmount")
    done = system.call(*mount, "-o", "nonsense", system.store, system.place)
    assert done.returncode == 1
    assert done.stderr.startswith("fsmount: unknown mount option 'nonsense'")
    done = system.call(*mount, tmp_path / "gone", system.place)
    assert done.returncode == 32
    assert done.stderr.startswith(f"fsmount: {tmp_path}/gone is not an fsmount store")
    system.run(*mount, "-o", "nofail", tmp_path / "gone", system.place)
    # Only a store that does not exist is none.
    assert system.call(*mount, "-o", "nofail", "/etc", system.place).returncode == 32
    assert system.options() == set()


def test_flags(system: System) -> None:
    system.link("mount.fsmount")
    helper = ("/sbin/mount.fsmount", system.store, system.place)
    assert system.run(*helper, "-f", "-n", "-v", "-o", "ro") == (
        f"{system.store} mounted on {system.place}\n"
    )
    assert system.options() == set()
    assert system.call(*helper, "-o", "nonsense").returncode == 1
    system.run(*helper, "-s", "-o", "nonsense", "-t", "fuse.fsmount")
    assert "rw" in system.options()
    system.umount()


def test_another_namespace(system: System, tmp_path: Path) -> None:
    """mount -N runs the helper outside the namespace. The helper enters it."""
    system.link("mount.fsmount")
    done = subprocess.run(
        [system.program, "mount.fsmount", system.store, system.place, "-N",
         str(system._keeper.pid), "-o", "noexec"],
        check=False, capture_output=True, text=True, cwd="/",
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "noexec" in system.options()
    assert not system.place.is_mount()
    system.umount()


def test_setup_of_the_system(system: System) -> None:
    """It makes the links, and shows a line of fstab that works with them."""
    done = system.call(system.program, "setup", "--system", system.store, system.place)
    assert done.returncode == 0, done
    for name in LINKS.values():
        assert f"wrote /sbin/{name}\n" in done.stdout
        assert system.run("readlink", f"/sbin/{name}") == f"{system.program}\n"
    unit = system.run("cat", "/etc/systemd/system/fsmount@.service")
    assert f"ExecStart={system.program} mount" in unit
    assert "allow_other" in system.run("cat", "/etc/fsmount/place.conf")
    system.fstab.write_text(done.stdout.splitlines()[-1].strip() + "\n")
    system.run("mount", "-T", system.fstab, system.place)
    assert "allow_other" in system.options()
    system.umount()
    done = system.call(system.program, "setup", "--system", "--remove", system.store, system.place)
    assert done.returncode == 0, done
    gone = ("/sbin/mount.fsmount", "/sbin/mount.fuse.fsmount", "/etc/fsmount")
    for path in (*gone, "/etc/systemd/system/fsmount@.service"):
        assert system.call("test", "-e", path).returncode == 1, path


@pytest.mark.skipif(shutil.which("mount.fuse3") is None, reason="mount.fuse3 is not installed")
def test_without_links_mount_fuse_runs_the_program(system: System) -> None:
    """mount.fuse of libfuse adds the options dev and suid. It looks for fsmount in usual places."""
    system.link("fsmount")
    system.write_fstab("fuse.fsmount", AUTOMOUNT + ",user,noexec")
    system.run("mount", "-T", system.fstab, system.place)
    assert system.options() >= {"rw", "nosuid", "nodev", "noexec"}
    assert system.write("one").returncode == 0
    system.umount()


def open_to_all(system: System, place: Path) -> None:
    """Let every user run Python and fsmount in the namespace, also where they lie in /root."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), CHECKOUT]
    closed = {
        next(folder for folder in reversed(path.parents) if not folder.stat().st_mode & 1)
        for path in needed
        if not all(folder.stat().st_mode & 1 for folder in path.parents)
    }
    for folder in closed:
        inside = [path for path in needed if folder in path.parents]
        for number, path in enumerate(inside):
            system.run("mkdir", place / str(number))
            system.run("mount", "--bind", path, place / str(number))
        system.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        for number, path in enumerate(inside):
            system.run("mkdir", "-p", path)
            system.run("mount", "--move", place / str(number), path)


@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3 is not installed")
def test_a_mount_as_a_user(system: System, tmp_path: Path) -> None:
    """With setuid=NAME the files of the store belong to the user, also if root mounts."""
    system.link("mount.fuse.fsmount")
    overlay = tmp_path / "overlay"
    open_to_all(system, overlay)
    # Folders of pytest are open to their owner only.
    tmp_path.chmod(0o711)
    system.run("mount", "--bind", tmp_path, "/mnt")
    system.store, system.place = Path("/mnt/own/store"), Path("/mnt/own/place")
    for folder in ("/mnt/own", system.place):
        system.run("mkdir", folder)
        system.run("chown", "nobody", folder)
    group = pwd.getpwnam("nobody").pw_gid
    as_user = ("setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups", "--")
    system.run(*as_user, sys.executable, "-m", "fsmount", "init", system.store)
    # Here only root may open /dev/fuse. Elsewhere everybody may.
    system.run("mknod", "-m", "666", overlay / "fuse", "c", "10", "229")
    system.run("mount", "--bind", overlay / "fuse", "/dev/fuse")
    system.write_fstab("fuse.fsmount", "noauto,setuid=nobody")
    system.run("mount", "-T", system.fstab, system.place)
    system.run(*as_user, "sh", "-c", f"printf text > '{system.place}/file'")
    assert system.run(*as_user, "cat", system.place / "file") == "text"
    system.run(*as_user, "fusermount3", "-u", system.place)
    owners = {path.owner() for path in (tmp_path / "own" / "store").rglob("*")}
    assert owners == {"nobody"}
    system.write_fstab("fuse.fsmount", "noauto,setuid=no-such-user")
    done = system.call("mount", "-T", system.fstab, system.place)
    assert done.returncode == 1
    assert "there is no such user" in done.stderr


_GENERATOR = Path("/lib/systemd/system-generators/systemd-fstab-generator")


@pytest.mark.skipif(not _GENERATOR.exists(), reason="systemd is not installed")
def test_systemd_takes_the_line(system: System, tmp_path: Path) -> None:
    """systemd makes a mount and an automount unit of the line."""
    system.write_fstab("fuse.fsmount", AUTOMOUNT)
    units = tmp_path / "units"
    units.mkdir()
    subprocess.run(
        [_GENERATOR, units, units, units],
        env={"SYSTEMD_FSTAB": str(system.fstab), "SYSTEMD_LOG_TARGET": "console"},
        check=True,
        timeout=30,
    )
    name = subprocess.run(
        ["systemd-escape", "--path", system.place], capture_output=True, text=True, check=True
    ).stdout.strip()
    mount = (units / f"{name}.mount").read_text()
    assert "Type=fuse.fsmount" in mount
    assert "TimeoutIdleSec=10min" in (units / f"{name}.automount").read_text()
