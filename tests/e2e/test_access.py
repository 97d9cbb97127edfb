"""Access by other users: modes, owners, and information that the files of a store reveal."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.bench.measure import descendants
from tests.e2e.mounts import Mount, missing

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root"),
]

NOBODY = 65534
SECRET = b"a secret that stands nowhere else"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


def test_others_see_nothing(place: Path) -> None:
    mount = Mount(place)
    mount.start()
    try:
        (mount.path / "a").write_bytes(b"x")
        (mount.path / "a").chmod(0o666)
        (place / "beside").write_text("seen")
        assert as_nobody("cat", place / "beside").stdout == "seen"
        for command in (("ls", mount.path), ("cat", mount.path / "a")):
            assert "Permission denied" in as_nobody(*command).stderr
        mount.stop()
    finally:
        mount.clean()


def test_allow_other_keeps_modes_and_owners(place: Path) -> None:
    mount = Mount(place, "allow_other")
    mount.start()
    try:
        mount.path.chmod(0o755)
        for name, mode in (("open", 0o644), ("closed", 0o600)):
            (mount.path / name).write_bytes(b"x")
            (mount.path / name).chmod(mode)
        (mount.path / "theirs").mkdir()
        os.chown(mount.path / "theirs", NOBODY, NOBODY)
        assert as_nobody("cat", mount.path / "open").stdout == "x"
        assert "Permission denied" in as_nobody("cat", mount.path / "closed").stderr
        for command in (
            ("touch", mount.path / "new"),
            ("rm", "-f", mount.path / "open"),
            ("chmod", "666", mount.path / "open"),
            ("dd", "if=/dev/null", f"of={mount.path / 'open'}"),
        ):
            assert as_nobody(*command).returncode, command
        assert as_nobody("cp", mount.path / "open", mount.path / "theirs" / "copy").returncode == 0
        made = (mount.path / "theirs" / "copy").stat()
        assert (made.st_uid, made.st_gid) == (NOBODY, NOBODY)
        mount.stop()
    finally:
        mount.clean()


def test_a_store_is_private_and_its_logs_say_nothing_of_contents(place: Path) -> None:
    mount = Mount(place)
    mount.start()
    try:
        (mount.path / "note.txt").write_bytes(SECRET)
        os.setxattr(mount.path / "note.txt", "user.note", SECRET)
        (mount.path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET)
        inside = list(mount.store.rglob("*"))
        assert inside
        for path in (mount.store, *inside):
            info = path.lstat()
            assert not stat.S_ISSOCK(info.st_mode)
            assert not info.st_mode & 0o077, path
        mount.stop(drain=True)
        assert not [path for path in mount.store.rglob("*") if path.lstat().st_mode & 0o077]
    finally:
        mount.clean()
    for log in (mount.log, mount.store / "mount.log"):
        if log.exists():
            assert SECRET not in log.read_bytes()


def test_workers_listen_nowhere(place: Path) -> None:
    """Workers use pairs of unnamed sockets, which no other process can open."""
    mount = Mount(place)
    mount.start()
    try:
        (mount.path / "a").write_bytes(b"x")
        held = set()
        for pid in (mount.pid, *descendants(mount.pid)):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                # The processes are at work: what one of them had open may be closed by now.
                with suppress(FileNotFoundError):
                    target = os.readlink(link)
                    if target.startswith("socket:["):
                        held.add(target[8:-1])
        assert held
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        assert not [row for row in rows if row[6] in held and len(row) > 7], "a socket with a path"
        mount.stop()
    finally:
        mount.clean()
