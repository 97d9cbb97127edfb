"""Albums made of folders: quality above the floor, and groups of photos that look alike."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsmount.album import builder, canvas, jobs, video
from fsmount.album.album import Album
from fsmount.album.files import AlbumPaths
from fsmount.album.quality import measure
from tests.support.albums import BOX, create, packets, single, verify
from tests.support.photos import burst, exif, folder, jpeg, scene

# -- quality


async def test_below_the_floor_it_is_coded_better(tmp_path: Path) -> None:
    _, (plain,) = await single(tmp_path, floor=0.0, grade=50)
    shutil.rmtree(tmp_path / "a")
    floor = (plain.ssim + 1) / 2
    _, (better,) = await single(tmp_path, floor=floor, grade=50)
    assert plain.grade == 50
    assert better.grade < 50
    assert better.ssim >= floor > plain.ssim


async def test_what_no_grade_brings_above_the_floor_is_said(tmp_path: Path) -> None:
    place, summary = await create(folder(tmp_path / "a", 1), tmp_path / "out", floor=1.0)
    assert [Path(path).name for path, _ in summary.coarse] == ["IMG_0.JPG"]
    assert summary.photos[0].grade == video.CODECS["av1"].finest
    assert (await verify(place)).files == 1


async def test_the_recorded_quality_is_that_of_the_file(tmp_path: Path) -> None:
    place, (entry,) = await single(tmp_path)
    album = Album(place)
    frames = video.Decoder(album.settings.video_codec, album.settings.extradata).decode(
        packets(place)
    )
    album.close()
    with Image.open(tmp_path / "a" / "IMG_0.JPG") as image:
        wanted = image.resize((256, 192), Image.Resampling.BICUBIC).convert("YCbCr").split()[0]
    found = measure(np.asarray(wanted), canvas.crop(frames[0], entry.rect)[0])
    assert (found.ssim, found.psnr) == (entry.ssim, entry.psnr)


# -- photos that look alike


def shots(path: Path, pixels: list[Any]) -> Path:
    path.mkdir()
    for number, one in enumerate(pixels):
        taken = f"2014:07:05 12:00:{number:02d}"
        (path / f"{number:02d}.jpg").write_bytes(jpeg(one, exif=exif(1, taken=taken)))
    return path


def video_bytes(place: AlbumPaths) -> int:
    return sum(map(len, packets(place)))


async def test_bursts_are_smaller_at_the_same_floor(tmp_path: Path) -> None:
    source = shots(tmp_path / "burst", burst(7, 12, 400, 300))
    alone, _ = await create(source, tmp_path / "alone")
    together, summary = await create(source, tmp_path / "together", bursts=True)
    assert [entry.key for entry in summary.photos] == [0] * 8 + [8] * 4
    assert all(entry.ssim >= builder.DEFAULT_FLOOR for entry in summary.photos)
    assert video_bytes(alone) > 1.5 * video_bytes(together)
    assert (await verify(together)).files == 12


async def test_unrelated_photos_are_never_larger_with_bursts(tmp_path: Path) -> None:
    source = shots(tmp_path / "walk", [scene(seed, 400, 300) for seed in range(16)])
    alone, _ = await create(source, tmp_path / "alone")
    together, summary = await create(source, tmp_path / "together", bursts=True)
    assert [entry.key for entry in summary.photos] == list(range(16))
    assert video_bytes(together) <= video_bytes(alone)


def encoded(group: list[Path], **more: Any) -> list[jobs.EncodedPhoto]:
    """A group of photos, coded as workers code it."""
    codec = video.CODECS["av1"]
    extradata = video.extradata_of(video.template(codec, BOX))
    settings = jobs.CodecSettings("av1", codec.grade, BOX, 90, builder.DEFAULT_FLOOR, extradata)
    answers = jobs.encode([str(path) for path in group], dataclasses.replace(settings, **more))
    assert not any(isinstance(answer, str) for answer in answers)
    return [answer for answer in answers if not isinstance(answer, str)]


def test_a_group_that_is_larger_than_its_photos_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots(tmp_path / "a", burst(7, 3, 400, 300))
    paths = sorted((tmp_path / "a").iterdir())
    assert [one.is_key for one in encoded(paths)] == [True, False, False]
    encode = video.encode

    def padded(codec: Any, canvases: Any, *more: Any) -> list[bytes]:
        found = encode(codec, canvases, *more)
        # At this size no group is kept. The decoder ignores the bytes that follow the packet.
        return found if len(canvases) == 1 else [one + b"\x7a\0" * 30_000 for one in found]

    monkeypatch.setattr(video, "encode", padded)
    assert [one.is_key for one in encoded(paths)] == [True, True, True]


def test_a_group_with_a_photo_below_the_floor_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots(tmp_path / "a", burst(7, 3, 400, 300))
    paths = sorted((tmp_path / "a").iterdir())
    graded = jobs._encode_group

    def spoilt(group: Any, settings: Any) -> Any:
        found = graded(group, settings)
        if len(group) > 1:
            worse = dataclasses.replace(found[-1].quality, ssim=builder.DEFAULT_FLOOR - 0.001)
            found[-1] = dataclasses.replace(found[-1], quality=worse)
        return found

    monkeypatch.setattr(jobs, "_encode_group", spoilt)
    assert [one.is_key for one in encoded(paths)] == [True, True, True]


def test_unrelated_photos_told_to_be_a_group_are_never_larger(tmp_path: Path) -> None:
    """A wrong group of the detector costs no bytes."""
    shots(tmp_path / "a", [scene(seed, 400, 300) for seed in range(6)])
    paths = sorted((tmp_path / "a").iterdir())
    together, alone = encoded(paths), [one for path in paths for one in encoded([path])]
    assert sum(len(one.packet) for one in together) <= sum(len(one.packet) for one in alone)
    assert min(one.quality.ssim for one in together) >= builder.DEFAULT_FLOOR
