"""Albums of real photos, if there are any: their size, and their photos on a mount.

FSMOUNT_PHOTOS names a folder of JPEGs. Without it the tests use the wallpapers of the system
(Debian: lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, plasma-workspace-wallpapers).
With FSMOUNT_CORPUS_FULL=1 the photos of the bursts are as large as those of cameras.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fsmount.album.quality import measure
from tests.e2e.mounts import missing
from tests.support.photos import burst, exif, jpeg, scene

_PLACES = (Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers"))
_MEGAPIXELS = (7.9, 17)
_LEAST, _MOST = 6, 60

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


def fsmount(*arguments: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def photos() -> list[Path]:
    """Real JPEGs of 8 to 16 megapixels that decode, each of them once."""
    named = os.environ.get("FSMOUNT_PHOTOS")
    found: dict[int, Path] = {}
    for place in (Path(named),) if named else _PLACES:
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() not in (".jpg", ".jpeg") or not path.is_file():
                continue
            try:
                with Image.open(path) as image:
                    if _MEGAPIXELS[0] <= image.width * image.height / 1e6 <= _MEGAPIXELS[1]:
                        image.load()
                        found.setdefault(path.stat().st_size, path)
            except OSError:
                continue
    if len(found) < _LEAST:
        pytest.skip("no photos here: FSMOUNT_PHOTOS=FOLDER, or install some wallpapers")
    return list(found.values())[:_MOST]


@pytest.fixture(name="place")
def mountpoint(place_of_a_server: Path) -> Path:
    return place_of_a_server


def test_real_photos_are_twelve_times_smaller_and_open_under_their_names(
    tmp_path: Path, place: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, path in enumerate(photos()):
        (source / f"{number:02d} {path.name}").symlink_to(path)
    folder = tmp_path / "photos"
    subprocess.run(["cp", "-aL", source, folder], check=True)
    command = [sys.executable, "-m", "fsmount", "album", "create", str(folder), "--json"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    assert not found["problems"]
    (album,) = found["albums"]
    assert album["photos"] + len(found["unfit"]) == len(list(source.iterdir()))
    assert album["ratio"] >= 12
    assert album["worst_ssim"] >= album["floor"]
    fsmount("mount", tmp_path / "out" / "photos.xml", place)
    assert sorted(os.listdir(place)) == sorted(os.listdir(folder))
    kept = {Path(path).name for path, _ in found["unfit"]}
    for original in sorted(folder.iterdir()):
        copy = place / original.name
        size = copy.stat().st_size
        assert len(copy.read_bytes()) == size
        assert copy.stat().st_mtime_ns == original.stat().st_mtime_ns
        if original.name in kept:
            continue
        with Image.open(original) as first, Image.open(copy) as second:
            second.load()
            assert max(second.size) <= 2048
            wanted = ImageOps.exif_transpose(first).resize(second.size, Image.Resampling.BICUBIC)
            assert first.info.get("icc_profile") == second.info.get("icc_profile")
            alike = measure(np.asarray(wanted.convert("L")), np.asarray(second.convert("L")))
        assert alike.ssim > 0.85, original.name


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_bursts_and_walks(tmp_path: Path, codec: str) -> None:
    """Albums of full size: 12 photos of one scene, and 16 photos of 16 scenes."""
    size = (3264, 2448) if os.environ.get("FSMOUNT_CORPUS_FULL") else (1224, 918)
    for name, pixels in (
        ("burst", burst(7, 12, *size)),
        ("walk", [scene(seed, *size) for seed in range(16)]),
    ):
        (tmp_path / name).mkdir()
        for number, one in enumerate(pixels):
            taken = f"2014:07:05 12:00:{number:02d}"
            data = jpeg(one, exif=exif(1, taken=taken), quality=92)
            (tmp_path / name / f"{number:02d}.jpg").write_bytes(data)
    found = {}
    for name in ("burst", "walk"):
        for more in ((), ("--bursts",)):
            out = tmp_path / f"out {len(more)}"
            text = fsmount(
                *("album", "create", tmp_path / name, "-o", out, "--codec", codec, "--json"), *more
            )
            (found[name, len(more)],) = json.loads(text)["albums"]
    alone, together = found["burst", 0], found["burst", 1]
    assert alone["video_bytes"] >= 1.5 * together["video_bytes"]
    assert together["worst_ssim"] >= min(alone["worst_ssim"], together["floor"])
    assert together["groups"] == 2
    assert found["walk", 1]["video_bytes"] <= found["walk", 0]["video_bytes"]
