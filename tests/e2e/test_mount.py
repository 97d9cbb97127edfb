"""Everyday programs on a real kernel mount."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
import signal
import subprocess
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.errors import BadMountpoint, StoreLocked
from fsmount.mount.mountpoint import check_mountpoint, mounted_at
from fsmount.mount.session import MountRequest, serve_in_background
from fsmount.mount.unmount import unmount
from tests.e2e.mounts import Mount, missing

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture
def disk(mount: Mount) -> Path:
    """The mounted folder."""
    return mount.path


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kind(path: Path) -> str:
    return os.getxattr(path, "user.fsmount.kind").decode()


def encode_all(mount: Mount) -> None:
    """Encode all files: unmount with drain, then mount again. This also empties all caches."""
    mount.stop(drain=True)
    mount.start()


def screenshots(folder: Path, count: int = 6) -> dict[str, bytes]:
    """Write a few PNGs, each with a small change from the previous one. Returns name -> bytes."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    frame = np.repeat(random.integers(0, 256, (60, 20, 3), dtype=np.uint8), 4, axis=1)
    made = {}
    for number in range(count):
        frame[5:15, 10 * number : 10 * number + 9] = number
        path = folder / f"2024-06-06T17-{number:02d}.png"
        Image.fromarray(frame).save(path)
        os.utime(path, ns=(10**18 + number, 17 * 10**17 + 123_456_789 + number))
        made[path.name] = path.read_bytes()
    return made


def test_cp_mv_rm_and_friends(disk: Path, tmp_path: Path) -> None:
    made = screenshots(tmp_path / "in")
    run("cp", "-a", tmp_path / "in", disk / "shots")
    run("diff", "-r", tmp_path / "in", disk / "shots")
    run("mkdir", "-p", disk / "a/b/c")
    run("mv", disk / "shots", disk / "a/b/c/shots")
    run("ln", disk / "a/b/c/shots/2024-06-06T17-00.png", disk / "hard.png")
    run("ln", "-s", "a/b/c/shots", disk / "link")
    run("chmod", "600", disk / "hard.png")
    run("touch", "-d", "2001-02-03 04:05:06.789 UTC", disk / "hard.png")
    found = (disk / "link/2024-06-06T17-00.png").stat()
    assert (found.st_nlink, found.st_mode & 0o777) == (2, 0o600)
    assert found.st_mtime_ns == 981_173_106_789_000_000
    assert (disk / "hard.png").read_bytes() == made["2024-06-06T17-00.png"]
    run("rm", disk / "hard.png")
    assert (disk / "link/2024-06-06T17-00.png").stat().st_nlink == 1
    with pytest.raises(OSError, match="not empty"):
        (disk / "a").rmdir()
    run("rm", "-r", disk / "a", disk / "link")
    assert list(disk.iterdir()) == []
    assert os.statvfs(disk).f_namemax == 255
    with pytest.raises(OSError, match="too long"):
        (disk / ("n" * 256)).touch()


def test_rsync_twice_and_after_encoding(mount: Mount, disk: Path, tmp_path: Path) -> None:
    made = screenshots(tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("not a picture")
    (tmp_path / "in/empty").touch()
    run("rsync", "-a", f"{tmp_path}/in/", disk / "in")
    assert run("rsync", "-ai", f"{tmp_path}/in/", disk / "in") == ""
    encode_all(mount)
    assert os.getxattr(disk, "user.fsmount.staged") == b"0"
    assert run("rsync", "-aiX", f"{tmp_path}/in/", disk / "in") == ""
    assert run("rsync", "-ai", "--checksum", f"{tmp_path}/in/", disk / "in") == ""
    for name, data in made.items():
        assert kind(disk / "in" / name) in ("key", "delta", "raw")
        told = os.getxattr(disk / "in" / name, "user.fsmount.sha256").decode()
        assert told == hashlib.sha256(data).hexdigest()
        assert (disk / "in" / name).read_bytes() == data
    assert os.listxattr(disk / "in/empty") == []
    run("rsync", "-a", "--inplace", "--checksum", f"{tmp_path}/in/", disk / "in")
    run("rsync", "-a", f"{disk}/in/", tmp_path / "out")
    run("diff", "-r", tmp_path / "in", tmp_path / "out")


def test_memory_maps(mount: Mount, disk: Path) -> None:
    data = os.urandom(300_000)
    (disk / "a").write_bytes(data)
    encode_all(mount)
    with (disk / "a").open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            assert view[:] == data
        with mmap.mmap(file.fileno(), 0) as view:
            view[100_000:100_004] = b"mmap"
            view.flush()
    assert (disk / "a").read_bytes() == data[:100_000] + b"mmap" + data[100_004:]


def test_a_map_of_an_appending_handle_writes_in_place(disk: Path) -> None:
    (disk / "a").write_bytes(b"." * 10_000)
    with (disk / "a").open("a+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[0:4] = b"head"
        view.flush()
    assert (disk / "a").read_bytes() == b"head" + b"." * 9_996


def test_unlink_and_rename_over_open_files(mount: Mount, disk: Path) -> None:
    for name in ("a", "b"):
        (disk / name).write_bytes(name.encode() * 5000)
    encode_all(mount)
    with (disk / "a").open("rb") as a, (disk / "b").open("r+b") as b:
        (disk / "new").write_bytes(b"new")
        (disk / "new").rename(disk / "a")
        (disk / "b").unlink()
        b.write(b"X")
        b.flush()
        b.seek(0)
        assert a.read() == b"a" * 5000
        assert b.read() == b"X" + b"b" * 4999
        assert os.fstat(b.fileno()).st_nlink == 0
    assert (disk / "a").read_bytes() == b"new"
    assert [path.name for path in disk.iterdir()] == ["a"]


def test_two_readers_and_a_writer_beside_them(mount: Mount, disk: Path) -> None:
    data = os.urandom(2_000_000)
    (disk / "a").write_bytes(data)
    encode_all(mount)
    found: list[bytes] = []
    readers = [
        threading.Thread(target=lambda: found.append((disk / "a").read_bytes())) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [data, data]
    with (disk / "a").open("rb") as reading, (disk / "a").open("r+b", buffering=0) as writing:
        assert reading.read(10) == data[:10]
        writing.seek(1_000_000)
        writing.write(b"changed")
        reading.seek(1_000_000)
        assert reading.read(7) == b"changed"
    assert zlib.crc32((disk / "a").read_bytes()[1_000_007:]) == zlib.crc32(data[1_000_007:])


def test_two_appenders_both_land(disk: Path) -> None:
    def append(letter: bytes) -> None:
        with (disk / "log").open("ab", buffering=0) as file:
            for _ in range(200):
                file.write(letter * 10)

    writers = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    data = (disk / "log").read_bytes()
    assert len(data) == 4000
    assert (
        sorted(data[n : n + 10] for n in range(0, 4000, 10))
        == [b"a" * 10] * 200 + [b"b" * 10] * 200
    )


def test_truncate_and_append_to_an_encoded_file(mount: Mount, disk: Path) -> None:
    for name in ("cut", "grown", "appended"):
        (disk / name).write_bytes(b"0123456789")
    encode_all(mount)
    assert kind(disk / "cut") == "raw"
    os.truncate(disk / "cut", 4)
    os.truncate(disk / "grown", 12)
    with (disk / "appended").open("ab") as file:
        file.write(b"+")
    for _ in range(2):
        assert (disk / "cut").read_bytes() == b"0123"
        assert (disk / "grown").read_bytes() == b"0123456789\0\0"
        assert (disk / "appended").read_bytes() == b"0123456789+"
        encode_all(mount)


def test_sparse_and_huge(disk: Path) -> None:
    path = disk / "huge"
    path.touch()
    try:
        os.truncate(path, 10**15)
    except OSError as error:
        assert error.errno == errno.EFBIG
        os.truncate(path, 10**12)
    with path.open("rb") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == bytes(10)
    assert path.stat().st_blocks < 10_000
    path.unlink()
    assert not list(disk.iterdir())


def test_xattrs(disk: Path) -> None:
    path = disk / "a"
    path.touch()
    os.setxattr(path, "user.colour", b"red", os.XATTR_CREATE)
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.colour", b"blue", os.XATTR_CREATE)
    with pytest.raises(OSError, match="No data"):
        os.setxattr(path, "user.size", b"1", os.XATTR_REPLACE)
    assert os.listxattr(path) == ["user.colour"]
    assert os.getxattr(path, "user.colour") == b"red"
    os.removexattr(path, "user.colour")
    assert os.listxattr(path) == []
    with pytest.raises(PermissionError):
        os.setxattr(path, "user.fsmount.kind", b"x")


def test_modes_owners_and_fifos(disk: Path) -> None:
    before = os.umask(0o027)
    try:
        (disk / "file").touch()
        (disk / "dir").mkdir()
        os.mkfifo(disk / "fifo")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode) for path in disk.iterdir()}
    assert modes == {"file": "0o100640", "dir": "0o40750", "fifo": "0o10640"}
    (disk / "dir").chmod(0o2775)
    os.chown(disk / "dir", -1, 12345) if os.geteuid() == 0 else None
    (disk / "dir/sub").mkdir()
    assert (disk / "dir/sub").stat().st_gid == (disk / "dir").stat().st_gid


def test_many_entries_are_all_listed(disk: Path) -> None:
    names = {f"file {number:04d}" for number in range(700)}
    for name in names:
        (disk / name).touch()
    assert {entry.name for entry in os.scandir(disk)} == names
    listed = run("ls", "-a", disk).split("\n")
    assert listed[:2] == [".", ".."]
    for name in sorted(names)[::2]:
        (disk / name).unlink()
    assert len(list(disk.iterdir())) == 350


def test_what_was_written_survives_kill_9(mount: Mount, disk: Path, tmp_path: Path) -> None:
    made = screenshots(tmp_path / "in")
    run("rsync", "-a", f"{tmp_path}/in/", disk / "in")
    writing = (disk / "open").open("wb", buffering=0)
    writing.write(b"accepted")
    mount.crash()
    with pytest.raises(OSError) as stale:
        (disk / "in").stat()
    assert stale.value.errno == errno.ENOTCONN
    with pytest.raises(BadMountpoint, match="has died; give it free with: fsmount umount"):
        check_mountpoint(disk, mount.store)
    with pytest.raises(OSError):
        writing.close()
    mount.clear()
    mount.start()
    assert run("rsync", "-ai", f"{tmp_path}/in/", disk / "in") == ""
    assert {path.name: path.read_bytes() for path in (disk / "in").iterdir()} == made
    assert (disk / "open").read_bytes() == b"accepted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(mount: Mount, disk: Path, number: signal.Signals) -> None:
    (disk / "a").write_bytes(b"a" * 10_000)
    with (disk / "a").open("r+b") as file:
        view = mmap.mmap(file.fileno(), 0)
    view[0:1] = b"b"  # changed in the kernel only
    assert mount.signal(number) == 0
    view.close()
    assert mounted_at(disk) is None
    mount.start()
    assert (disk / "a").read_bytes() == b"b" + b"a" * 9_999


def test_unmount_waits_for_encoding_and_refuses_a_busy_mount(mount: Mount, disk: Path) -> None:
    screenshots(disk / "in")
    seen: list[int] = []
    with (disk / "in").joinpath("2024-06-06T17-00.png").open("rb"):
        with pytest.raises(BadMountpoint, match="busy"):
            unmount(disk, progress=seen.append)
        assert seen[-1] == 0
    assert kind(disk / "in/2024-06-06T17-00.png") != "staged"
    mount.stop()
    with pytest.raises(BadMountpoint, match="nothing is mounted"):
        unmount(disk)


def test_plain_umount_is_safe(mount: Mount, disk: Path, tmp_path: Path) -> None:
    made = screenshots(tmp_path / "in")
    shutil.copytree(tmp_path / "in", disk / "in")
    run("umount", disk)
    mount.signal(signal.SIGCONT)  # the signal has no effect: this call waits until the process ends
    mount.start()
    assert {path.name: path.read_bytes() for path in (disk / "in").iterdir()} == made


def test_options_change_what_is_shown(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    try:
        mount.start()
        (mount.path / "a").write_bytes(b"x")
        (mount.path / "a").chmod(0o666)
        mount.stop(drain=True)
        mount.options = "ro,uid=1234,gid=4321,umask=027"
        mount.start()
        found = (mount.path / "a").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 4321, 0o640)
        assert (mount.path / "a").read_bytes() == b"x"
        with pytest.raises(OSError) as refused:
            (mount.path / "b").touch()
        assert refused.value.errno == errno.EROFS
        mount.stop()
    finally:
        mount.clean()


def test_background(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    try:
        serve_in_background(MountRequest(mount.store, mount.path))
        (mount.path / "a").write_bytes(b"x")
        second = tmp_path / "second"
        second.mkdir()
        with pytest.raises(StoreLocked):
            serve_in_background(MountRequest(mount.store, second))
        with pytest.raises(BadMountpoint, match="mounted there already"):
            serve_in_background(MountRequest(mount.store, mount.path))
        unmount(mount.path)
        serve_in_background(MountRequest(mount.store, mount.path))
        assert (mount.path / "a").read_bytes() == b"x"
        unmount(mount.path)
    finally:
        mount.clean()


def test_a_read_only_mount_follows_the_writer_beside_it(tmp_path: Path) -> None:
    writer, reader = Mount(tmp_path), Mount(tmp_path, "ro")
    reader.path = tmp_path / "second"
    reader.path.mkdir()
    writer.start()
    try:
        (writer.path / "a").write_bytes(b"one")
        reader.start()
        assert (reader.path / "a").read_bytes() == b"one"
        with pytest.raises(OSError, match="Read-only"):
            (reader.path / "b").write_bytes(b"x")
        (writer.path / "a").write_bytes(b"another")
        (writer.path / "b").write_bytes(b"new")
        end = time.monotonic() + 20
        while (reader.path / "a").read_bytes() != b"another" or not (reader.path / "b").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        reader.stop()
        writer.stop()
    finally:
        reader.clean()
        writer.clean()
