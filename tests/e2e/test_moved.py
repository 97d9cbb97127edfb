"""A store whose folder is renamed under a real mount, with another store under its old name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.mount.unmount import unmount
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from tests.e2e.mounts import SEAL_BYTES, Mount, missing
from tests.support.frames import png, screens
from tests.support.paths import CHECKOUT
from tests.support.photos import folder

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason="no /dev/fuse here"),
]

ROOT = CHECKOUT


def fsmount(*arguments: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == code, done.stderr
    assert "/proc/" not in done.stdout + done.stderr
    return done.stdout


def write(path: Path, data: bytes) -> None:
    """Write, force and close a file, so that it is acknowledged."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def files_of(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def replace(root: Path, moved: Path) -> dict[str, bytes]:
    """Rename the store and make another under its old name. Returns the files of the new one."""
    root.rename(moved)
    config.make(root, Disk())
    return files_of(root)


def shown(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


@pytest.fixture(name="place")
def mountpoint(place_of_a_server: Path) -> Path:
    return place_of_a_server


@pytest.fixture
def pictures() -> dict[str, bytes]:
    made = {f"{number:02d}.png": png(frame) for number, frame in enumerate(screens(12))}
    return made | {f"{number}.bin": os.urandom(5000) for number in range(4)}


@pytest.mark.parametrize("drain", ["--no-wait", ""])
def test_what_was_acknowledged_is_in_the_store_that_was_moved(
    tmp_path: Path, place: Path, pictures: dict[str, bytes], drain: str
) -> None:
    root, moved = tmp_path / "s", tmp_path / "s.moved"
    fsmount("init", root)
    fsmount("mount", root, place)
    names = sorted(pictures)
    for name in names[:8]:
        write(place / name, pictures[name])
    new = replace(root, moved)
    for name in names[8:]:
        write(place / name, pictures[name])
    assert shown(place) == pictures
    (place / "00.png").unlink()
    (place / "01.png").rename(place / "renamed.png")
    pictures["renamed.png"] = pictures.pop("01.png")
    del pictures["00.png"]
    if drain:
        unmount(place, drain=False)
    else:
        fsmount("umount", place)
    assert files_of(root) == new
    assert "/proc/" not in (moved / "mount.log").read_text()
    assert "no damage found" in fsmount("check", "--full", moved)
    for path, files in ((moved, pictures), (root, {})):
        fsmount("mount", path, place)
        assert shown(place) == files
        fsmount("umount", place)
        assert "no damage found" in fsmount("check", "--full", path)
    fsmount("mount", "-o", "ro", moved, place)
    assert shown(place) == pictures
    fsmount("umount", place)


def test_again_and_again_while_it_encodes_and_repacks(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEAL_BYTES, "20000")
    mount = Mount(tmp_path, "repack=1")
    mount.start()
    try:
        where, others = mount.store, []
        for number, (name, data) in enumerate(sorted(pictures.items())):
            write(mount.path / name, data)
            moved = tmp_path / f"moved{number}"
            others.append((where, replace(where, moved)))
            where = moved
        assert shown(mount.path) == pictures
        mount.stop(drain=True)
    finally:
        mount.clean()
    for path, new in others:
        assert files_of(path) == new
    assert "no damage found" in fsmount("check", "--full", where)
    where.rename(tmp_path / "end")
    shutil.rmtree(mount.store)
    (tmp_path / "end").rename(mount.store)
    mount.start()
    try:
        assert shown(mount.path) == pictures
        mount.stop()
    finally:
        mount.clean()


def test_killed_after_it_was_moved(tmp_path: Path, place: Path, pictures: dict[str, bytes]) -> None:
    (tmp_path / "killed").mkdir()
    mount = Mount(tmp_path / "killed")
    mount.start()
    try:
        names = sorted(pictures)
        for name in names[:8]:
            write(mount.path / name, pictures[name])
        new = replace(mount.store, tmp_path / "moved")
        for name in names[8:]:
            write(mount.path / name, pictures[name])
        mount.crash()
    finally:
        mount.clean()
    assert files_of(mount.store) == new
    fsmount("mount", tmp_path / "moved", place)
    assert shown(place) == pictures
    fsmount("umount", place)
    assert "no damage found" in fsmount("check", "--full", tmp_path / "moved")


def test_albums_beside_go_with_it(tmp_path: Path, place: Path) -> None:
    root, moved = tmp_path / "s", tmp_path / "s.moved"
    fsmount("init", root)
    source = folder(tmp_path / "in" / "Italy", 3)
    (root / "albums").mkdir()
    fsmount("album", "create", source, "-o", root / "albums", "--box", 256)
    fsmount("mount", root, place)
    photos = {path.name: path.read_bytes() for path in (place / "Italy").iterdir()}
    assert photos
    fsmount("umount", place)
    fsmount("mount", root, place)
    new = replace(root, moved)
    write(place / "a.bin", b"ours")
    assert {path.name: path.read_bytes() for path in (place / "Italy").iterdir()} == photos
    fsmount("umount", place)
    assert files_of(root) == new
    fsmount("mount", moved, place)
    assert (place / "a.bin").read_bytes() == b"ours"
    assert {path.name: path.read_bytes() for path in (place / "Italy").iterdir()} == photos
    fsmount("umount", place)


def test_a_mount_for_reading_goes_on(
    tmp_path: Path, place: Path, pictures: dict[str, bytes]
) -> None:
    root, moved = tmp_path / "s", tmp_path / "s.moved"
    fsmount("init", root)
    (tmp_path / "in").mkdir()
    for name, data in pictures.items():
        (tmp_path / "in" / name).write_bytes(data)
    fsmount("import", f"{tmp_path}/in/", root)
    fsmount("mount", "-o", "ro", root, place)
    new = replace(root, moved)
    assert shown(place) == pictures
    fsmount("umount", place)
    assert files_of(root) == new
    assert "no damage found" in fsmount("check", "--full", moved)
