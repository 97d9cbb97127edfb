"""Stores that cannot be written: on a read-only disk, or owned by another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.errors import FsmountError, NotWritable
from fsmount.mount.mountpoint import mounted_at
from fsmount.store.store import open_store
from tests.e2e.mounts import missing
from tests.support.encoding import open_either
from tests.support.frames import png, screens
from tests.support.paths import CHECKOUT

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason="no /dev/fuse here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a disk read-only"),
]

ROOT = CHECKOUT
PICTURE = png(screens(1)[0])
NOBODY = 65534


def fsmount(*arguments: object, code: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == code, done.stderr
    assert "/proc/" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture(name="place")
def mountpoint(place_of_a_server: Path) -> Path:
    return place_of_a_server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one encoded picture and one staged file."""
    root = tmp_path / "s"
    fsmount("init", root)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(PICTURE)
    fsmount("import", f"{tmp_path}/in/", root)
    opened = open_store(root)
    token = opened.staging.create()
    opened.staging.path(token).write_bytes(b"staged")
    opened.index.create(1, b"staged", mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=6)
    opened.close()
    return root


@pytest.fixture
def locked(store: Path, tmp_path: Path) -> Iterator[Path]:
    """The same store on a read-only disk."""
    path = tmp_path / "locked"
    path.mkdir()
    subprocess.run(["mount", "--bind", store, path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def shown(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_mount_says_how_it_can_be_had(locked: Path, place: Path) -> None:
    wanted = (
        f"fsmount: {locked} cannot be written ({locked}/lock: Read-only file system)."
        " To read its files, mount it with -o ro\n"
    )
    assert fsmount("mount", locked, place, code=1) == ("", wanted)
    assert mounted_at(place) is None
    assert fsmount("mount", "-f", locked, place, code=1)[1] == wanted
    fsmount("mount", "-o", "ro", locked, place)
    assert shown(place) == {"a.png": PICTURE, "staged": b"staged"}
    fsmount("umount", place)


@pytest.mark.parametrize(
    "command", [("repack",), ("check", "--repair"), ("import", "/dev/null")], ids=str
)
def test_a_command_that_writes_says_so(locked: Path, command: tuple[str, ...]) -> None:
    error = fsmount(*command, locked, code=1)[1]
    assert error == f"fsmount: {locked} cannot be written: {locked}/lock: Read-only file system\n"


def test_commands_that_read_work(locked: Path, tmp_path: Path) -> None:
    assert "no damage found" in fsmount("check", "--full", locked)[0]
    assert [line.split()[-1] for line in fsmount("ls", locked)[0].splitlines()] == [
        "a.png",
        "staged",
    ]
    fsmount("stats", locked)
    fsmount("export", locked, tmp_path / "out")
    assert shown(tmp_path / "out") == {"a.png": PICTURE, "staged": b"staged"}


def test_without_its_empty_folders(store: Path, place: Path) -> None:
    """A reader does not need empty folders. All files are shown."""
    (store / "raw").rmdir()
    subprocess.run(["mount", "--bind", store, store], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        fsmount("mount", "-o", "ro", store, place)
        assert shown(place) == {"a.png": PICTURE, "staged": b"staged"}
        os.statvfs(place)
        fsmount("umount", place)
    finally:
        subprocess.run(["umount", "-l", store], check=True)


def opened_by_nobody(root: Path, *, read_only: bool = False) -> str:
    """Open the store as a user who does not own it. Returns the error, or "" if the store opens."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        text = "?"
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setgroups([])
            os.setresuid(NOBODY, NOBODY, NOBODY)
            open_either(root, read_only=read_only).close()
            text = ""
        except FsmountError as error:
            text = f"{type(error).__name__}: {error}"
        except BaseException as error:
            text = repr(error)
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def public(store: Path) -> Iterator[Path]:
    """A store that every user can reach and read."""
    path = Path("/var/tmp") / f"fsmount-{os.getpid()}"
    shutil.copytree(store, path)
    for found in (path, *path.rglob("*")):
        found.chmod(0o755 if found.is_dir() else 0o644)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("writable", "named"),
    [
        ((), "lock"),
        (("lock",), "index.sqlite"),
        (("lock", "", "index.sqlite"), "packs"),
        (("lock", "", "index.sqlite", "packs"), "staging"),
        (("lock", "", "index.sqlite", "packs", "staging"), "raw"),
    ],
)
def test_another_users_store(public: Path, writable: tuple[str, ...], named: str) -> None:
    """The error names the path that cannot be written."""
    for name in writable:
        (public / name).chmod(0o777)
    if "" not in writable:
        # SQLite finds a log that it can open. Otherwise it would report the folder.
        (public / "index.sqlite-wal").touch(0o666)
        (public / "index.sqlite-shm").touch(0o666)
    told = opened_by_nobody(public)
    wanted = f"{NotWritable.__name__}: {public} cannot be written: {public}/{named}: "
    assert told == wanted + "Permission denied"


def test_another_users_store_can_be_read(public: Path) -> None:
    assert opened_by_nobody(public, read_only=True) == ""
    (public / "index.sqlite").chmod(0o600)
    told = opened_by_nobody(public, read_only=True)
    assert "Permission denied" in told
    assert "damaged" not in told
