"""Damaged albums, and albums whose builder is killed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from fsmount.album import files
from fsmount.album.album import Album
from fsmount.album.files import AlbumPaths
from fsmount.errors import DiskFull
from tests.support.albums import create, packets, verify
from tests.support.photos import camera, folder

KILLS = int(os.environ.get("FSMOUNT_KILLS", "12"))
KILL_SEED = int(os.environ.get("FSMOUNT_SEED", "1"))


# -- damage


async def test_damage_anywhere_is_found_and_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", 2)
    (source / "notes.txt").write_text("notes")
    place, summary = await create(source, tmp_path / "out")
    path = place.folder / "a.mp4"
    whole = path.read_bytes()
    data = bytearray(whole)
    data[summary.photos[1].offset + 50] ^= 1
    path.write_bytes(data)
    assert [name for name, _ in (await verify(place)).problems] == ["IMG_1.JPG"]
    path.write_bytes(whole[:-200])
    assert str(path) in [name for name, _ in (await verify(place)).problems]
    path.write_bytes(whole)
    (place.files / "notes.txt").write_text("other")
    assert [name for name, _ in (await verify(place)).problems] == ["notes.txt"]
    (place.files / "notes.txt").unlink()
    assert [name for name, _ in (await verify(place)).problems] == ["notes.txt"]
    path.unlink()
    assert len((await verify(place)).problems) == 4


# -- a full disk


async def test_a_disk_that_fills_up_leaves_no_album(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "a", 2)
    (source / "notes.txt").write_text("notes")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "copy_verbatim", full)
    with pytest.raises(DiskFull):
        await create(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# -- death


def start(source: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fsmount", "album", "create", str(source), "--box", "256"]
    return subprocess.Popen([*command, "-o", str(output), "--force"], stdout=subprocess.DEVNULL)


async def state(place: AlbumPaths) -> list[str] | None:
    """The hashes of the photos of an album, which must be whole; None if there is no album."""
    if not place.xml.exists():
        return None
    assert (await verify(place)).problems == []
    album = Album(place)
    try:
        return [entry.sha256 for entry in album.contents.photos]
    finally:
        album.close()


def test_kill_9_at_any_moment_leaves_the_old_album_the_new_one_or_none(tmp_path: Path) -> None:
    """Kill runs at moments spread over their whole length.

    Some runs create a first album, others replace one.
    """
    old, new = folder(tmp_path / "old" / "a", 3), folder(tmp_path / "new" / "a", 5)
    begun = time.monotonic()
    whole = AlbumPaths(tmp_path / "whole", "a")
    assert start(new, whole.folder).wait() == 0
    lasts = time.monotonic() - begun
    wanted = trio.run(state, whole)
    place = AlbumPaths(tmp_path / "replaced", "a")
    assert start(old, place.folder).wait() == 0
    before = trio.run(state, place)
    assert None not in (wanted, before)
    assert wanted != before
    random_moments = random.Random(KILL_SEED)
    seen = set()
    for number in range(KILLS):
        # Most possible faults are near the end.
        part = (number + random_moments.random()) / KILLS
        moment = lasts * (part if number % 2 else 0.7 + 0.4 * part)
        fresh = AlbumPaths(tmp_path / f"fresh {number}", "a")
        found = fresh if number % 4 < 2 else place
        process = start(new, found.folder)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = trio.run(state, found)
        assert after in ((wanted, None) if found is fresh else (wanted, before)), moment
        seen.add(after is None)
        if found is place and after == wanted:
            assert start(old, place.folder).wait() == 0
    assert True in seen  # some runs were killed before their end
    assert start(new, place.folder).wait() == 0
    assert trio.run(state, place) == wanted
    assert {path.name for path in place.folder.iterdir()} == {"a.xml", "a.mp4"}


def test_append_killed_at_any_moment_leaves_the_old_album_or_the_new_one(tmp_path: Path) -> None:
    source, late = folder(tmp_path / "a", 3), tmp_path / "late"
    late.mkdir()
    for number in range(3):
        (late / f"late {number}.jpg").write_bytes(camera(50 + number))
    first, place = AlbumPaths(tmp_path / "first", "a"), AlbumPaths(tmp_path / "out", "a")
    assert start(source, first.folder).wait() == 0
    before = trio.run(state, first)
    earlier = packets(first)
    command = [sys.executable, "-m", "fsmount", "album", "append", str(place.xml), str(late)]
    lasts, seen = 0.0, set()
    for number in range(max(4, KILLS // 2) + 1):
        shutil.rmtree(place.folder, ignore_errors=True)
        shutil.copytree(first.folder, place.folder)
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if number:
            time.sleep(lasts * (0.3 + 0.75 * number / max(4, KILLS // 2)))
            process.send_signal(signal.SIGKILL)
        process.wait()
        lasts = lasts or time.monotonic() - begun
        after = trio.run(state, place)
        assert after is not None
        assert before is not None
        assert (after == before) or (after[:3] == before and len(after) == 6)
        assert packets(place)[:3] == earlier
        seen.add(len(after))
    assert seen == {3, 6}
