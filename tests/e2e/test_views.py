"""The virtual folders of a mount: pictures by day, and those that brought something new."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsmount.errors import UsageError
from fsmount.mount import session
from fsmount.mount.options import MountOptions
from tests.e2e.mounts import Mount, missing
from tests.support.frames import png, screens

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


@pytest.fixture(name="mount")
def a_mount(tmp_path: Path) -> Iterator[Mount]:
    made = Mount(tmp_path, "views")
    made.start()
    yield made
    made.clean()


def name(day: int, hour: int) -> str:
    return f"2024-06-{day:02}T{hour:02}:00:00.png"


def pictures() -> dict[str, bytes]:
    """Pictures of three days, three each. Only the first of a day shows much that is new."""
    found = {}
    for day in (5, 6, 7):
        frame = np.random.default_rng(day).integers(0, 256, (160, 160, 3), np.uint8)
        for hour in (1, 2, 3):
            frame = frame.copy()
            frame[:8, :8] = hour
            found[name(day, hour)] = png(frame)
    return found


def write(folder: Path, files: dict[str, bytes]) -> None:
    for each, data in files.items():
        (folder / each).write_bytes(data)


def settled(mount: Mount) -> None:
    while os.getxattr(mount.path, "user.fsmount.staged") != b"0":
        time.sleep(0.05)
    # A listing stays as it is for a second.
    time.sleep(1.1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_day_has_its_pictures_as_the_same_files(mount: Mount) -> None:
    files = pictures()
    write(mount.path, files)
    (mount.path / "notes.txt").write_text("no picture")
    settled(mount)
    view = mount.path / ".fsmount"
    assert names(view) == ["by-day", "changed", "text"]
    assert names(view / "by-day/2024/06") == ["05", "06", "07"]
    assert names(view / "by-day/2024/06/06") == [name(6, hour) for hour in (1, 2, 3)]
    for day in (5, 6, 7):
        for hour in (1, 2, 3):
            shown = view / f"by-day/2024/06/{day:02}" / name(day, hour)
            assert shown.read_bytes() == files[shown.name]
            assert shown.samefile(mount.path / shown.name)
    # rsync and cp see files like any others.
    copied = mount.path.parent / "copied"
    shutil.copytree(view / "by-day/2024/06/05", copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        each: data for each, data in files.items() if "06-05" in each
    }
    mount.stop()


def test_changed_has_what_brought_something_new(mount: Mount) -> None:
    write(mount.path, pictures())
    settled(mount)
    # An equal file brings nothing.
    write(mount.path, {name(6, 9): pictures()[name(6, 1)]})
    settled(mount)
    view = mount.path / ".fsmount/changed/2024/06"
    assert {day: names(view / day) for day in names(view)} == {
        f"{day:02}": [name(day, 1)] for day in (5, 6, 7)
    }
    mount.stop()


def test_names_that_come_move_and_go(mount: Mount) -> None:
    files = pictures()
    write(mount.path, {name(5, 1): files[name(5, 1)]})
    day = mount.path / ".fsmount/by-day/2024/06/05"
    assert names(day) == [name(5, 1)]
    # As rsync does it: a name of its own first.
    other = mount.path / ".2024.png.Xyz"
    other.write_bytes(files[name(5, 2)])
    other.rename(mount.path / name(5, 2))
    settled(mount)
    assert names(day) == [name(5, 1), name(5, 2)]
    (mount.path / name(5, 1)).unlink()
    time.sleep(1.1)
    assert names(day) == [name(5, 2)]
    with pytest.raises(FileNotFoundError):
        (day / name(5, 1)).stat()
    # A picture that is moved away from its day is there no more.
    (mount.path / name(5, 2)).rename(mount.path / name(6, 2))
    time.sleep(1.1)
    assert not day.exists()
    assert names(day.parent / "06") == [name(6, 2)]
    mount.stop()


def test_equal_names_of_two_folders_stay_apart(mount: Mount) -> None:
    first, second = pictures()[name(5, 1)], pictures()[name(5, 2)]
    for folder, data in (("laptop", first), ("desk", second)):
        (mount.path / folder).mkdir()
        write(mount.path / folder, {name(5, 1): data})
    (mount.path / ".Trash-0/files").mkdir(parents=True)
    write(mount.path / ".Trash-0/files", {name(5, 3): first})
    settled(mount)
    day = mount.path / ".fsmount/by-day/2024/06/05"
    assert names(day) == [name(5, 1), f"laptop_{name(5, 1)}"]
    assert (day / name(5, 1)).read_bytes() == second
    assert (day / f"laptop_{name(5, 1)}").read_bytes() == first
    mount.stop()


def test_the_folders_cannot_be_changed(mount: Mount) -> None:
    write(mount.path, {name(5, 1): pictures()[name(5, 1)]})
    day = mount.path / ".fsmount/by-day/2024/06/05"
    shown = day / name(5, 1)
    for change in (
        shown.unlink,
        lambda: (day / "new").write_bytes(b"x"),
        (day / "new").mkdir,
        lambda: shown.rename(day / "other"),
        lambda: shown.rename(mount.path / "other.png"),
        lambda: os.link(shown, day / "other"),
        (mount.path / ".fsmount/by-day").rmdir,
        lambda: (mount.path / ".fsmount").rename(mount.path / "away"),
    ):
        with pytest.raises(OSError):
            change()
    assert stat.S_IMODE(day.stat().st_mode) & 0o222 == 0
    assert names(mount.path) == [".fsmount", name(5, 1)]
    mount.stop()


def test_listing_decodes_nothing(mount: Mount) -> None:
    files = {name(5, hour): png(frame) for hour, frame in enumerate(screens(20, height=64))}
    write(mount.path, files)
    settled(mount)
    mount.stop()
    # Damage in a picture would be an error if it were decoded.
    pack = mount.store / "packs/00000001.zip"
    data = bytearray(pack.read_bytes())
    at = data.index(b"RIFF")
    data[at + 40 : at + 60] = bytes(20)
    pack.write_bytes(data)
    mount.start()
    view = mount.path / ".fsmount"
    listed = subprocess.run(["ls", "-lR", view], capture_output=True, text=True, check=True)
    assert all(listed.stdout.count(each) >= 1 for each in files)
    mount.stop()


def test_a_read_only_mount_has_them_too(tmp_path: Path) -> None:
    mount = Mount(tmp_path, "views")
    mount.start()
    write(mount.path, pictures())
    settled(mount)
    mount.stop()
    mount.options = "ro,views"
    mount.start()
    try:
        assert len(list((mount.path / ".fsmount/by-day").rglob("*.png"))) == 9
        mount.stop()
    finally:
        mount.clean()


def test_without_the_option_there_are_none(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    mount.start()
    try:
        assert names(mount.path) == []
        mount.stop()
    finally:
        mount.clean()
    request = session.MountRequest(
        tmp_path,
        tmp_path / "mnt",
        MountOptions(views=True),
        open_tree=lambda *_: None,  # type: ignore[arg-type]
    )
    with pytest.raises(UsageError, match="'views' is for stores"):
        request.check()
