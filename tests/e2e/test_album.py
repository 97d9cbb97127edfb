"""Albums on a real mount, and albums restored without fsmount."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fsmount.album.quality import measure
from tests.e2e.mounts import missing
from tests.support.paths import CHECKOUT
from tests.support.photos import camera, folder

ROOT = CHECKOUT


def fsmount(*arguments: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture(scope="module", name="albums")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """in/Italy with photos of all kinds, and out/ with its albums in two codecs."""
    root = tmp_path_factory.mktemp("albums")
    source = folder(root / "in" / "Italy", 4)
    (source / "notes.txt").write_text("notes")
    Image.open(io.BytesIO(camera(8))).save(source / "screen.png")
    (source / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(camera(9))
    (source / "cut.jpg").write_bytes(camera(10)[:9000])
    fsmount("album", "create", source, "-o", root / "out", "--box", 256, code=3)
    prores = ["--codec", "prores", "--qscale", 16, "--box", "256x256"]
    fsmount("album", "create", source, "-o", root / "out" / "prores", *prores, code=3)
    return root


@pytest.fixture(name="place")
def mountpoint(place_of_a_server: Path) -> Path:
    return place_of_a_server


def tags(path: Path) -> dict[str, Any]:
    """All metadata except that of the file and its pixels, and the pixels of the thumbnail."""
    command = ["exiftool", "-json", "-a", "-G1", "-n", "-b", str(path)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    dull = ("System:", "File:", "ExifTool:", "Composite:", "JFIF:", "SourceFile")
    kept = {name: value for name, value in found.items() if not name.startswith(dull)}
    kept.pop("IFD1:ThumbnailImage", None)
    kept["comment"] = found.get("File:Comment")
    return kept


def assert_alike(original: Path, copy: Path, least: float = 0.9) -> None:
    """Check that a copy shows the same picture upright, with the same tags but the orientation."""
    with Image.open(original) as first, Image.open(copy) as second:
        second.load()
        wanted = ImageOps.exif_transpose(first).resize(second.size, Image.Resampling.BICUBIC)
        found = measure(np.asarray(wanted.convert("L")), np.asarray(second.convert("L")))
    assert found.ssim > least
    old, new = tags(original), tags(copy)
    assert (old.pop("IFD0:Orientation"), new.pop("IFD0:Orientation")) in ((1, 1), (6, 1))
    assert old == new


@pytest.mark.parametrize("name", ["Italy.xml", "Italy.mp4", "Italy", "prores/Italy.mov"])
@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_mounted_album_is_the_folder_it_was(albums: Path, place: Path, name: str) -> None:
    source = albums / "in" / "Italy"
    fsmount("mount", albums / "out" / name, place)
    names = {"screen.png.jpg" if one == "screen.png" else one for one in os.listdir(source)}
    assert set(os.listdir(place)) == names
    sizes = {one: (place / one).stat().st_size for one in names}
    for one in names:
        data = (place / one).read_bytes()
        assert len(data) == sizes[one]
        original = source / one.removesuffix(".jpg") if one == "screen.png.jpg" else source / one
        assert (place / one).stat().st_mtime_ns == original.stat().st_mtime_ns
        if one in ("notes.txt", "cut.jpg"):
            assert data == original.read_bytes()
            assert os.getxattr(place / one, "user.fsmount.kind") == b"verbatim"
        else:
            assert os.getxattr(place / one, "user.fsmount.kind") == b"lossy copy"
            assert float(os.getxattr(place / one, "user.fsmount.ratio")) > 1
            assert float(os.getxattr(place / one, "user.fsmount.ssim")) > 0.9
        if one.startswith("IMG_"):
            assert_alike(original, place / one)
    for change in (
        lambda: (place / "new").write_bytes(b""),
        (place / "notes.txt").unlink,
        lambda: (place / "notes.txt").write_text("x"),
    ):
        with pytest.raises(OSError) as error:
            change()
        assert error.value.errno == errno.EROFS
    fsmount("umount", place)
    assert not os.listdir(place)


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_folder_of_albums_is_a_folder_of_folders(albums: Path, place: Path) -> None:
    fsmount("mount", albums / "out", place)
    assert sorted(os.listdir(place)) == ["Italy", "prores"]
    assert os.listdir(place / "prores") == ["Italy"]
    first, second = place / "Italy", place / "prores" / "Italy"
    assert set(os.listdir(first)) == set(os.listdir(second))
    assert stat.S_ISDIR(first.stat().st_mode)
    assert_alike(albums / "in" / "Italy" / "IMG_1.JPG", second / "IMG_1.JPG")
    assert not (place / "none").exists()
    assert not (first / "none").exists()
    assert not (place / "Italy.files").exists()


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_albums_stand_beside_a_stores_files(albums: Path, place: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    fsmount("init", store)
    shutil.copytree(albums / "out", store / "albums")
    fsmount("mount", store, place)
    source = albums / "in" / "Italy"
    # New files go to the store. The albums appear beside them and do not change.
    for number in range(300):
        (place / f"{number:03d}.txt").write_text(str(number))
    assert sorted(os.listdir(place)) == [f"{n:03d}.txt" for n in range(300)] + ["Italy", "prores"]
    assert_alike(source / "IMG_1.JPG", place / "Italy" / "IMG_1.JPG")
    assert os.getxattr(place / "Italy" / "IMG_1.JPG", "user.fsmount.kind") == b"lossy copy"
    assert (place / "299.txt").read_text() == "299"
    inodes = {path.stat().st_ino for path in place.rglob("*")}
    assert len(inodes) == len(list(place.rglob("*")))
    refused: list[Callable[[], object]] = [
        (place / "Italy" / "IMG_1.JPG").unlink,
        (place / "Italy").rmdir,
        lambda: (place / "Italy").rename(place / "Spain"),
        lambda: (place / "Italy" / "new").write_text("x"),
        lambda: (place / "Italy" / "IMG_1.JPG").write_text("x"),
        (place / "Italy" / "new").mkdir,
        lambda: (place / "000.txt").rename(place / "Italy" / "000.txt"),
        lambda: (place / "Italy" / "IMG_1.JPG").chmod(0o600),
        lambda: os.utime(place / "Italy" / "IMG_1.JPG"),
    ]
    for change in refused:
        with pytest.raises(OSError) as error:
            change()
        assert error.value.errno == errno.EROFS
    with pytest.raises(FileExistsError):
        (place / "Italy").mkdir()
    (place / "folder").mkdir()
    (place / "000.txt").rename(place / "folder" / "a.txt")
    shutil.copy(place / "Italy" / "IMG_0.JPG", place / "folder")
    copied = (place / "folder" / "IMG_0.JPG").read_bytes()
    fsmount("umount", place)
    fsmount("mount", store, place)
    assert (place / "folder" / "IMG_0.JPG").read_bytes() == copied
    assert (place / "folder" / "a.txt").read_text() == "0"
    assert not (place / "000.txt").exists()
    assert len(os.listdir(place)) == 302
    fsmount("umount", place)
    fsmount("check", store, "--full")


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_names_sizes_and_heads_need_no_video(albums: Path, place: Path, tmp_path: Path) -> None:
    """Without the video, calls that decode nothing work. A read that decodes fails with EIO."""
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(albums / "out" / "Italy.xml", out)
    fsmount("mount", out / "Italy.xml", place)
    path = place / "IMG_1.JPG"
    assert path.stat().st_size > 10_000
    fd = os.open(path, os.O_RDONLY)
    try:
        # Read only the head. Otherwise the kernel would read ahead.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        start = os.read(fd, 2048)
    finally:
        os.close(fd)
    assert start.startswith(b"\xff\xd8\xff")
    assert b"fsmount maker note" in start
    with pytest.raises(OSError) as error:
        path.read_bytes()
    assert error.value.errno == errno.EIO


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_damaged_frame_is_an_error_and_its_neighbours_are_not(
    albums: Path, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(albums / "out", out)
    listed = json.loads(fsmount("album", "info", "--photos", "--json", out / "Italy.xml"))["list"]
    damaged = next(one for one in listed if one["name"] == "IMG_1.JPG")
    data = bytearray((out / "Italy.mp4").read_bytes())
    data[damaged["offset"] + 9] ^= 4
    (out / "Italy.mp4").write_bytes(data)
    fsmount("mount", out / "Italy.xml", place)
    for name in ("IMG_0.JPG", "IMG_2.JPG"):
        assert_alike(albums / "in" / "Italy" / name, place / name)
    with pytest.raises(OSError) as error:
        (place / "IMG_1.JPG").read_bytes()
    assert error.value.errno == errno.EIO


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_the_documented_way_with_ffmpeg_and_exiftool_only(
    albums: Path, tmp_path: Path, codec: str
) -> None:
    for program in ("ffmpeg", "exiftool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    source = albums / "in" / "Italy"
    out = tmp_path / "out"
    fsmount("album", "create", source, "-o", out, "--box", 256, "--codec", codec, code=3)
    page = (ROOT / "docs" / "album-format.md").read_text()
    script = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0].replace("album=NAME", "album=Italy")
    subprocess.run(["sh", "-eu", "-c", script], cwd=out, check=True)
    for number in range(4):
        name = f"IMG_{number}.JPG"
        restored = out / "restored" / name
        assert_alike(source / name, restored)
        assert restored.stat().st_mtime_ns == (source / name).stat().st_mtime_ns
    with Image.open(out / "restored" / "screen.png.jpg") as image:
        assert image.size == (256, 192)


def test_any_player_shows_the_video_and_exiftool_the_tags(albums: Path) -> None:
    if shutil.which("ffprobe") is None:
        pytest.skip("ffmpeg is not installed")
    out = albums / "out"
    for path, codec, pixels, colours in (
        (out / "Italy.mp4", "av1", "yuv420p10le", ("pc", "bt470bg")),
        (out / "prores" / "Italy.mov", "prores", "yuv422p10le", ("tv", "smpte170m")),
    ):
        command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
        done = subprocess.run(command, capture_output=True, check=True)
        (stream,) = json.loads(done.stdout)["streams"]
        assert (stream["codec_name"], stream["pix_fmt"]) == (codec, pixels)
        assert (stream["width"], stream["height"]) == (256, 256)
        assert (stream["nb_frames"], float(stream["duration"])) == ("6", 6.0)
        assert stream["avg_frame_rate"] == "1/1"
        # Newer ffprobe reports no range for ProRes, whose range is always limited.
        limited = "tv" if codec == "prores" else None
        assert (stream.get("color_range", limited), stream["color_space"]) == colours
    command = ["exiftool", "-a", "-s3", "-Model", str(out / "Italy.xml")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.split(b"\n").count(b"Canon EOS Test") >= 5
