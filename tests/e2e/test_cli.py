"""Commands with a real mount: in the background, beside the mount, and after its death."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from tests.e2e import slow_disk
from tests.e2e.commands import Server, fsmount, refused, well
from tests.e2e.mounts import Mount, missing
from tests.support.frames import png, screens
from tests.support.namespaces import own_namespace
from tests.support.paths import CHECKOUT
from tests.support.trees import REAL, facts, make_pictures

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def real_pictures(folder: Path) -> Path:
    """Copy three large screenshots, which take some time to encode."""
    folder.mkdir()
    for path in sorted(REAL.iterdir())[:3]:
        shutil.copy2(path, folder)
    return folder


def staged(root: Path) -> int:
    return int(json.loads(well("stats", root, "--json"))["objects"]["staged"])


def test_a_mount_in_the_background(root: Path, place: Path, tmp_path: Path) -> None:
    source = real_pictures(tmp_path / "desk")
    assert well("mount", root, place) == ""
    # The mount answers. Its process has left our session and our working folder.
    assert mounted_at(place) is not None
    assert list(place.iterdir()) == []
    server = Server(place)
    assert not server.ended(0)
    assert os.getsid(server.pid) != os.getsid(0)
    assert Path(f"/proc/{server.pid}/cwd").readlink() == Path("/")
    assert (root / "mount.log").stat().st_mode & 0o777 == 0o600
    shutil.copytree(source, place / "desk")
    # umount returns when all files are encoded and the store is closed.
    assert well("umount", place) == ""
    assert server.ended(0)
    assert mounted_at(place) is None
    found = json.loads(well("stats", root, "--json"))["objects"]
    assert found == {"key": 1, "delta": 2, "jpeg": 0, "raw": 0, "staged": 0}
    assert well("verify", source, root) == "3/3 identical\n"
    assert "no damage found" in well("check", root)
    well("mount", root, place, FSMOUNT_CACHE_SIZE="32M", FSMOUNT_LOG=str(tmp_path / "log"))
    for path in source.iterdir():
        assert (place / "desk" / path.name).read_bytes() == path.read_bytes()
    well("umount", place)
    log = (tmp_path / "log").read_text()
    assert "is mounted" in log
    assert "unmounted" in log


@pytest.mark.parametrize("how", ["--now", "umount"])
def test_what_is_not_encoded_waits_for_the_next_mount(
    root: Path, place: Path, tmp_path: Path, how: str
) -> None:
    source = real_pictures(tmp_path / "desk")
    well("mount", root, place)
    server = Server(place)
    with server.without_workers():
        shutil.copytree(source, place / "desk")
        if how == "--now":
            assert well("umount", "--now", place) == ""
            assert server.ended(0)
        else:
            subprocess.run(["umount", place], check=True)
            assert server.ended(30)
    assert staged(root) == 3
    assert well("verify", source, root) == "3/3 identical\n"
    well("mount", root, place)
    assert well("umount", place) == ""
    assert staged(root) == 0
    assert well("verify", source, root) == "3/3 identical\n"


def test_beside_a_mount(root: Path, place: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    make_pictures(source)
    well("mount", root, place)
    server = Server(place)
    shutil.copytree(source, place / "in")
    why = refused(11, "import", source, root)
    assert f"process {server.pid}" in why
    assert "work through its mountpoint" in why
    assert well("verify", source, root) == "3/3 identical\n"
    assert well("ls", root, "in").count("\n") == 3
    assert json.loads(well("stats", root, "--json"))["files"] == 3
    assert "3 files exported" in well("export", root, tmp_path / "out")
    assert facts(tmp_path / "out").keys() == {b"in", *(b"in/%02d.png" % n for n in range(3))}
    assert "no damage found" in well("check", "--full", root)
    other = tmp_path / "other"
    other.mkdir()
    assert "in use by another" in refused(11, "mount", root, other)
    assert "is mounted there already" in refused(12, "mount", root, place)
    well("mount", "-o", "ro", root, other)
    assert (other / "in" / "00.png").read_bytes() == (source / "00.png").read_bytes()
    with pytest.raises(OSError, match="Read-only"):
        (other / "new").touch()
    well("umount", other)
    well("umount", place)


def test_while_a_mount_encodes(root: Path, place: Path, tmp_path: Path) -> None:
    """Commands that read see files that move from staging into packs meanwhile."""
    source = tmp_path / "in"
    make_pictures(source, 40)
    well("mount", root, place)
    shutil.copytree(source, place / "in")
    assert json.loads(well("stats", root, "--json"))["files"] == 40
    assert well("verify", source, root) == "40/40 identical\n"
    assert "no damage found" in well("check", root)
    assert well("ls", root, "in").count("\n") == 40
    assert "40 files" in well("export", root, tmp_path / "out")
    well("umount", place)
    assert staged(root) == 0


def test_the_mountpoint_in_place_of_the_store(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "mnt"
    assert well("mount", "-p", root, place) == ""
    try:
        (place / "a").write_text("1")
        assert well("cat", place, "a") == "1"
        assert well("ls", place).endswith(" a\n")
        why = refused(12, "umount", root)
        assert why == f"{root}: it is a store, not a mountpoint; it is mounted at {place}"
        assert "name the store" in refused(10, "repack", place)
        assert "Choose a path outside" in refused(2, "init", place)
        Server(place).kill(signal.SIGKILL)
        # The store of a dead mount can still be read.
        assert well("cat", place, "a") == "1"
    finally:
        fsmount("umount", place)


def test_what_is_mounted_cannot_be_imported_into(root: Path, place: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a").write_text("1")
    well("mount", root, place)
    assert "is in use by another fsmount process" in refused(11, "import", source, root)
    assert "is in use by another fsmount process" in refused(
        11, "import", "--delete-source", source, root
    )
    why = refused(10, "import", source, place)
    assert why.startswith(f"{place} is the mountpoint of {root}, not the store. Copy files")
    assert os.listdir(place) == []
    assert (source / "a").read_text() == "1"
    well("umount", place)


def test_busy(root: Path, place: Path) -> None:
    well("mount", root, place)
    with (place / "open").open("wb"):
        why = refused(12, "umount", place)
        assert why.startswith(f"{place}: it is busy: process {os.getpid()} (")
        assert why.endswith(") has a file or its working folder there")
        assert mounted_at(place) is not None
    well("umount", place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU])
def test_signals_end_it_well(root: Path, place: Path, number: signal.Signals) -> None:
    well("mount", root, place)
    (place / "a").write_bytes(b"safe")
    Server(place).kill(number)
    assert mounted_at(place) is None
    assert staged(root) <= 1
    well("mount", root, place)
    assert (place / "a").read_bytes() == b"safe"
    well("umount", place)


def test_after_kill_9_the_message_has_the_remedy(root: Path, place: Path) -> None:
    well("mount", root, place)
    picture = png(screens(1)[0])
    (place / "a.png").write_bytes(picture)
    Server(place).kill(signal.SIGKILL)
    with pytest.raises(OSError) as stale:
        os.statvfs(place)
    assert stale.value.errno == errno.ENOTCONN
    remedy = f"fsmount umount {place}"
    assert refused(12, "mount", root, place).endswith(f"has died; give it free with: {remedy}")
    # The store itself is not locked.
    assert well("ls", root).endswith("a.png\n")
    done = fsmount("umount", place)
    assert (done.returncode, done.stdout) == (0, "")
    assert "had died; the folder is free again" in done.stderr
    well("mount", root, place)
    assert (place / "a.png").read_bytes() == picture
    well("umount", place)
    assert staged(root) == 0


def test_in_the_foreground(root: Path, place: Path) -> None:
    command = [sys.executable, "-m", "fsmount", "mount", "-f", str(place)]
    environment = {**os.environ, "FSMOUNT_STORE": str(root)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stderr is not None
        assert run.stderr.readline().endswith("is mounted\n")
        assert Server(place).pid == run.pid
        assert (root / "mount.log").exists() is False
        well("umount", place)
        assert run.stderr.readline().endswith("is unmounted\n")
        assert run.wait(30) == 0


def test_interrupting_umount_leaves_the_mount(root: Path, place: Path, tmp_path: Path) -> None:
    source = real_pictures(tmp_path / "desk")
    well("mount", root, place)
    with Server(place).without_workers():
        shutil.copytree(source, place / "desk")
        command = [sys.executable, "-m", "fsmount", "umount", str(place)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
            # umount has opened a descriptor of the server when it starts to wait.
            while not any("pidfd" in link for link in _links(run.pid)):
                assert run.poll() is None
            run.send_signal(signal.SIGINT)
            assert run.stderr is not None
            told = os.fsdecode(run.stderr.read()).strip()
            assert told.startswith("fsmount: stopped")
            assert told.endswith(f" {place} is still mounted and goes on.")
        assert run.returncode == 130
    assert mounted_at(place) is not None
    well("umount", place)
    assert staged(root) == 0


def test_interrupting_umount_after_the_mount_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server cannot close the store, because the disk hangs."""
    hang = tmp_path / "hang"
    monkeypatch.setenv(slow_disk.HANG, str(hang))
    monkeypatch.setenv(slow_disk.BELOW, str(tmp_path / "store"))
    mount = Mount(tmp_path)
    mount.start()
    try:
        (mount.path / "a").write_bytes(b"x")
        while staged(mount.store):
            time.sleep(0.05)
        server = Server(mount.path)
        hang.write_text("packs .")
        command = [sys.executable, "-m", "fsmount", "umount", str(mount.path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
            while mounted_at(mount.path) is not None:
                assert run.poll() is None
                time.sleep(0.01)
            run.send_signal(signal.SIGINT)
            assert run.stderr is not None
            told = os.fsdecode(run.stderr.read()).strip()
        assert run.returncode == 130
        assert told.startswith("fsmount: stopped")
        assert told.endswith(f" {mount.path} is unmounted; its process closes the store.")
        assert not server.ended(0)
        hang.unlink()
        assert server.ended(60)
    finally:
        hang.unlink(missing_ok=True)
        mount.clean()
    assert "no damage found" in well("check", "--full", mount.store)


def _links(pid: int) -> list[str]:
    found = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            found.append(os.readlink(entry))
    except FileNotFoundError:
        pass
    return found


def test_unmounting_what_is_not_ours(tmp_path: Path) -> None:
    assert refused(12, "umount", "/proc").endswith("is not a mount of fsmount")
    assert refused(12, "umount", tmp_path).endswith("nothing is mounted there")


# Errors for users without privileges


@pytest.fixture(name="public")
def folder_for_all() -> Iterator[Path]:
    """A folder that user nobody may enter, with a store and a mountpoint of that user."""
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs root, setpriv and unshare")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        well("init", path / "store")
        (path / "mnt").mkdir()
        for entry in (path / "mnt", path / "store", *(path / "store").rglob("*")):
            os.chown(entry, 65534, 65534)
        yield path


def as_nobody(public: Path, device_mode: int, path: str) -> subprocess.CompletedProcess[str]:
    """Run `fsmount mount` as user nobody, in a mount namespace with a /dev/fuse of the given mode.

    The capability only lets nobody read a Python in the home folder of root.
    """
    device = public / "fuse"
    os.mknod(device, stat.S_IFCHR | 0o600, Path("/dev/fuse").stat().st_rdev)
    device.chmod(device_mode)
    script = (
        'set -e; mount --bind "$1" /dev/fuse; caps=+dac_read_search; '
        "exec setpriv --reuid 65534 --clear-groups --inh-caps=$caps --ambient-caps=$caps "
        'env PATH="$2" HOME=/ "${@:3}"'
    )
    run = [sys.executable, "-m", "fsmount", "mount", str(public / "store"), str(public / "mnt")]
    command = [*own_namespace(), "bash", "-c", script, "bash", str(device), path, *run]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=CHECKOUT,
    )


@pytest.mark.parametrize(
    ("mode", "path", "why"),
    [
        (0o600, os.environ["PATH"], "/dev/fuse cannot be opened: Permission denied"),
        (0o666, "/nowhere", "fusermount3 is not installed; it comes with the package fuse3"),
    ],
)
def test_nobody_without_fuse(public: Path, mode: int, path: str, why: str) -> None:
    done = as_nobody(public, mode, path)
    if done.stderr.startswith(("mount:", "unshare:", "setpriv:")):
        pytest.skip(done.stderr)
    assert done.stderr == f"fsmount: FUSE cannot be used here: {why}\n"
    assert done.returncode == 13


def test_after_closing_a_read_only_store_is_as_it_was(root: Path, place: Path) -> None:
    """A mount with -o ro and no other process changes no file of the store but the journal."""
    (place.parent / "in").mkdir()
    (place.parent / "in" / "a.png").write_bytes(png(screens(1)[0]))
    well("import", place.parent / "in", root)

    def state() -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and not path.name.endswith(("-wal", "-shm", ".log"))
        }

    before = state()
    well("mount", "-o", "ro", root, place)
    assert (place / "in" / "a.png").stat().st_size > 0
    well("umount", place)
    assert state() == before


def test_repack_is_killed_and_goes_on(root: Path, tmp_path: Path) -> None:
    source = real_pictures(tmp_path / "desk")
    well("import", f"{source}/", root)
    before = json.loads(well("stats", root, "--json"))["stored_bytes"]
    killed = 0
    for signal_, seconds in (("KILL", 0.3), ("KILL", 1.0), ("INT", 1.5), ("KILL", 3.0)):
        command = [sys.executable, "-m", "fsmount", "repack", str(root)]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.Signals[f"SIG{signal_}"])
            running.communicate(timeout=30)
        # A fast machine may finish before the later signals. A slow one may not have begun.
        assert running.returncode in (-signal.SIGKILL, -signal.SIGINT, 130, 0)
        killed += running.returncode != 0
        well("check", root, "--full")
    assert killed
    found = json.loads(well("repack", root, "--json"))
    assert found["bytes_after"] < before
    assert found["problems"] == []
    assert "0 of 0 objects" in well("repack", root)
    well("check", root, "--full")
    assert well("verify", f"{source}/", root).strip() == "3/3 identical"


def test_repack_beside_mounts(root: Path, place: Path, tmp_path: Path) -> None:
    source = real_pictures(tmp_path / "desk")
    well("import", f"{source}/", root)
    well("mount", "-o", "ro", root, place)
    with (place / min(source.iterdir()).name).open("rb") as file:
        well("repack", root)
        assert file.read() == min(source.iterdir()).read_bytes()
    for path in source.iterdir():
        assert (place / path.name).read_bytes() == path.read_bytes()
    well("umount", place)
    well("mount", root, place)
    refused(11, "repack", root)
    well("umount", place)


def test_a_store_below_its_own_mountpoint(tmp_path: Path) -> None:
    """The store is hidden by its mount, which still reaches it."""
    store = tmp_path / "mnt" / "store"
    store.parent.mkdir()
    well("init", store)
    for _ in range(2):
        well("mount", "-o", "nonempty", store, store.parent)
        try:
            (store.parent / "a.png").write_bytes(png(screens(1)[0]))
            assert os.listdir(store.parent) == ["a.png"]
            assert (store.parent / "a.png").read_bytes() == png(screens(1)[0])
        finally:
            well("umount", store.parent)
    assert "no damage found" in well("check", "--full", store)


def test_programs_are_not_looked_for_in_its_own_mount(root: Path, place: Path) -> None:
    """Neither the start nor the end of a mount waits for the mount itself."""
    (place / "bin").mkdir()
    path = f"{place}/bin:{place}:{os.environ['PATH']}"
    well("mount", "-o", "nonempty", root, place, PATH=path)
    server = Server(place)
    # The server starts sync(1) for files that are open for writing.
    fd = os.open(place / "a", os.O_WRONLY | os.O_CREAT)
    server.kill(signal.SIGTERM)
    with suppress(OSError):
        os.close(fd)
    assert "not waited for" not in (root / "mount.log").read_text()
    assert list(place.iterdir()) == [place / "bin"]
