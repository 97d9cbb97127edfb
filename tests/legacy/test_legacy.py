"""Folders of PNGs and differences: the names give the order, and the pictures come back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.images import jxl
from fsmount.codec.png import png
from fsmount.codec.png.samples import Frame
from fsmount.legacy import archive
from fsmount.legacy.archive import Archive
from fsmount.legacy.decoding import Decoded
from fsmount.legacy.pictures import read_picture
from fsmount.legacy.runs import is_legacy
from fsmount.legacy.tree import LegacyTree
from fsmount.legacy.writing import encode_difference
from tests.support import pngs
from tests.support.encoding import Inline, forget_caches
from tests.support.legacies import (
    BERLIN,
    convert,
    convert_all,
    desk,
    folder_of,
    minutes,
    samples,
    save,
)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "Workers", Inline)
    forget_caches()


async def made(place: Path) -> dict[str, Decoded]:
    """The decoded picture of each difference of a folder, by stem."""
    reader = Archive(64 << 20, count=1)
    found = {}
    async with reader.running():
        for step in reader.scan(place).differences():
            found[step.name.decode()[:-4]] = await reader.decode(place, step.name)
    return found


def pixels(result: Decoded) -> Frame:
    assert result.png is not None, result.reason
    frame = np.array(Image.open(BytesIO(result.png)))
    return frame.reshape(frame.shape[0], frame.shape[1], -1)


def missing(found: dict[str, Decoded]) -> list[str]:
    return sorted(stem for stem, result in found.items() if result.png is None)


# -- pictures


async def test_every_picture_comes_back(tmp_path: Path) -> None:
    frames = folder_of(tmp_path, desk(12))
    assert len(convert(tmp_path)) == 11
    found = await made(tmp_path)
    assert len(found) == 11
    for stem, result in found.items():
        assert np.array_equal(pixels(result), frames[stem])


async def test_the_png_of_a_picture_is_always_the_same(tmp_path: Path) -> None:
    frame = desk(1)[0]
    data = png.canonical(frame)
    picture = png.parse(data)
    assert np.array_equal(png.read(data)[0], frame)
    assert picture.recipe.filters == b"\2" * 200
    assert picture.recipe.params == DeflateParams(6, 1, 8, 15)
    assert picture.recipe.split in (0, 8192)
    assert picture.recipe.head == b""


async def test_a_run_goes_on_over_a_pause(tmp_path: Path) -> None:
    stems = [*minutes(4), *minutes(4, 600)]
    frames = folder_of(tmp_path, desk(8), stems)
    convert(tmp_path)
    found = await made(tmp_path)
    assert len(found) == 7
    assert missing(found) == []
    assert np.array_equal(pixels(found[stems[5]]), frames[stems[5]])


async def test_a_missing_link_costs_the_pictures_behind_it(tmp_path: Path) -> None:
    everything = desk(6) + [np.roll(frame, 3, 0) for frame in desk(6, 9)]
    stems = list(minutes(12))
    frames = folder_of(tmp_path, everything, stems)
    # There are two runs: between them nearly all pixels change.
    convert(tmp_path, limit=60_000)
    assert (tmp_path / f"{stems[6]}.png").exists()
    (tmp_path / f"{stems[2]}.jxl").unlink()
    found = await made(tmp_path)
    assert missing(found) == stems[3:6]
    assert "missing" in found[stems[3]].reason
    assert stems[3] in found[stems[5]].reason
    assert np.array_equal(pixels(found[stems[8]]), frames[stems[8]])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[:200] + bytes([data[200] ^ 4]) + data[201:],
        lambda data: data[:-30] + bytes([data[-30] ^ 128]) + data[-29:],
    ],
    ids=["cut", "empty", "zeros", "a bit", "a late bit"],
)
async def test_a_damaged_link_costs_the_pictures_behind_it(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    stems = list(minutes(9))
    folder_of(tmp_path, desk(9), stems)
    convert(tmp_path)
    hurt = tmp_path / f"{stems[4]}.jxl"
    hurt.write_bytes(damage(hurt.read_bytes()))
    found = await made(tmp_path)
    assert missing(found) == stems[4:]
    assert "damaged" in found[stems[4]].reason
    assert all(stems[4] in found[stem].reason for stem in stems[5:])


async def test_a_run_without_its_png(tmp_path: Path) -> None:
    stems = list(minutes(4))
    folder_of(tmp_path, desk(4), stems)
    convert(tmp_path)
    (tmp_path / f"{stems[0]}.png").write_bytes(b"no PNG any more")
    found = await made(tmp_path)
    assert missing(found) == stems[1:]
    assert stems[0] in found[stems[1]].reason
    (tmp_path / f"{stems[0]}.png").unlink()
    assert "no picture before" in (await made(tmp_path))[stems[1]].reason


async def test_a_jxl_that_is_a_picture_of_its_own(tmp_path: Path) -> None:
    frames = desk(8)
    stems = list(minutes(8))
    by_stem = folder_of(tmp_path, frames, stems)
    photo = np.random.default_rng(3).integers(0, 255, (200, 240, 4), np.uint8)
    (tmp_path / f"{stems[3]}.png").unlink()
    convert(tmp_path)
    (tmp_path / f"{stems[3]}.jxl").write_bytes(jxl.encode(photo, 3))
    found = await made(tmp_path)
    assert [stem for stem, result in found.items() if result.is_picture] == [stems[3]]
    assert missing(found) == [stems[3]]
    for stem in (stems[2], stems[4], stems[7]):
        assert np.array_equal(pixels(found[stem]), by_stem[stem])


async def test_shapes_that_change(tmp_path: Path) -> None:
    wide = desk(9)
    narrow = [np.ascontiguousarray(frame[..., :3]) for frame in wide]
    grey = [np.ascontiguousarray(frame[..., :1]) for frame in wide]
    small = [np.ascontiguousarray(frame[:90]) for frame in wide]
    mixed = wide[:2] + narrow[2:4] + small[4:6] + grey[6:8] + wide[8:]
    stems = list(minutes(9))
    frames = folder_of(tmp_path, mixed, stems)
    assert len(convert(tmp_path)) == 4
    found = await made(tmp_path)
    assert sorted(found) == [stems[1], stems[3], stems[5], stems[7]]
    for stem, result in found.items():
        assert np.array_equal(pixels(result), frames[stem])
    # The RGB picture is missing. Its difference must not be added to the RGBA picture before it.
    (tmp_path / f"{stems[2]}.png").unlink()
    found = await made(tmp_path)
    assert missing(found) == [stems[3]]
    assert "shape" in found[stems[3]].reason


async def test_differences_of_what_a_script_read_as_rgb(tmp_path: Path) -> None:
    frames = desk(4)
    stems = list(minutes(4))
    folder_of(tmp_path, frames, stems)
    for at in range(1, 4):
        difference = np.ascontiguousarray((frames[at] - frames[at - 1])[..., :3])
        (tmp_path / f"{stems[at]}.jxl").write_bytes(jxl.encode(difference, 1))
        (tmp_path / f"{stems[at]}.png").unlink()
    found = await made(tmp_path)
    for at in range(1, 4):
        assert np.array_equal(pixels(found[stems[at]]), frames[at])


async def test_palette_pictures(tmp_path: Path) -> None:
    frames = [np.ascontiguousarray(frame[..., :3]) for frame in desk(3)]
    stems = list(minutes(3))
    image = Image.fromarray(frames[0]).quantize(64)
    image.save(tmp_path / f"{stems[0]}.png")
    first = np.array(image)[..., np.newaxis]
    indices = [first, first.copy(), first.copy()]
    indices[1][:9] = 1
    indices[2][:] = 2
    for at in (1, 2):
        data = jxl.encode(indices[at] - indices[at - 1], 1)
        (tmp_path / f"{stems[at]}.jxl").write_bytes(data)
    found = await made(tmp_path)
    for at in (1, 2):
        result = found[stems[at]].png
        assert result is not None
        shown = Image.open(BytesIO(result))
        assert shown.mode == "P"
        assert np.array_equal(np.array(shown)[..., np.newaxis], indices[at])
        assert shown.getpalette() == Image.open(tmp_path / f"{stems[0]}.png").getpalette()


async def test_small_pictures_come_back_from_what_is_written(tmp_path: Path) -> None:
    """All samples may differ. Then a difference may look more like a picture than the picture."""
    source = np.random.default_rng(1)
    noise = source.integers(0, 256, (20, 30, 3), np.uint8)
    frames = [noise, noise + np.uint8(9), noise, np.full_like(noise, 3), noise[::-1].copy()]
    stems = list(minutes(5))
    by_stem = folder_of(tmp_path, frames, stems)
    for before, late in pairwise(stems):
        data = encode_difference(str(tmp_path / f"{before}.png"), str(tmp_path / f"{late}.png"))
        if data is not None:
            (tmp_path / f"{late}.jxl").write_bytes(data)
    for path in tmp_path.glob("*.jxl"):
        path.with_suffix(".png").unlink()
    for stem, result in (await made(tmp_path)).items():
        assert np.array_equal(pixels(result), by_stem[stem])


async def test_sixteen_bits(tmp_path: Path) -> None:
    source = np.random.default_rng(5)
    frames = [source.integers(0, 65536, (30, 40, 3), np.uint16)]
    frames += [frames[0].copy() for _ in range(2)]
    frames[1][3:9] += np.uint16(40_000)
    frames[2][:] = frames[1][::-1]
    stems = list(minutes(3))
    (tmp_path / f"{stems[0]}.png").write_bytes(png.canonical(frames[0]))
    for at in (1, 2):
        data = jxl.encode(frames[at] - frames[at - 1], 1)
        (tmp_path / f"{stems[at]}.jxl").write_bytes(data)
    found = await made(tmp_path)
    for at in (1, 2):
        result = found[stems[at]].png
        assert result is not None
        assert np.array_equal(png.read(result)[0], frames[at])


def test_a_difference_of_sixteen_bits_is_not_written(tmp_path: Path) -> None:
    """libjxl 0.10.1 can harm the process when it encodes such a difference at effort 1."""
    for dtype in (np.uint8, np.uint16):
        frames = np.zeros((2, 30, 40, 3), dtype)
        frames[1, 3] = 7
        paths = [str(tmp_path / f"{dtype.__name__}{number}.png") for number in range(2)]
        for path, frame in zip(paths, frames, strict=True):
            Path(path).write_bytes(png.canonical(frame))
        assert (encode_difference(*paths) is None) == (dtype is np.uint16)


# -- order

SPRING = [f"2024-03-31T0{m // 60}:{m % 60:02}:00" for m in range(90, 210, 10)]
# One hour comes twice. Pictures of its second pass stand between pictures of the first.
AUTUMN = [f"2024-10-27T02:{m:02}:00" for m in range(0, 60, 5)]
# These are Berlin's summer and winter time: an order by digits would mix the two hours.
AUTUMN_ZONED = [
    f"2024-10-27T02:{m:02}:00+0{hours}:00" for hours in (2, 1) for m in range(0, 60, 10)
]
JOURNEY = [
    *(f"2024-06-06T2{h}:00:00.5+02:00" for h in range(4)),
    *(f"2024-06-06T{h}:00:00.25Z" for h in (22, 23)),
    *(f"2024-06-06T{h}:10:00-08:00" for h in range(16, 22)),
]
FRACTIONS = [f"2024-06-06T10:00:00.{part:06}" for part in range(1, 25, 2)]


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "PST8PDT,M3.2.0,M11.1.0"])
@pytest.mark.parametrize("stems", [SPRING, AUTUMN, AUTUMN_ZONED, JOURNEY, FRACTIONS])
async def test_pixels_do_not_depend_on_the_time_zone(
    stems: list[str], zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = folder_of(tmp_path, desk(12), stems)
    assert len(convert(tmp_path)) == 11
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = await made(tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert missing(found) == []
    assert all(np.array_equal(pixels(found[stem]), frames[stem]) for stem in stems[1:])


@pytest.mark.parametrize("ahead", [-9, 0, 2, 14])
async def test_of_a_mixed_folder_comes_what_is_certain(ahead: int, tmp_path: Path) -> None:
    """The last six names have a zone. The first six are local times, `ahead` hours ahead of UTC."""
    start = datetime(2024, 6, 6, tzinfo=UTC)
    when = [start + timedelta(hours=10 * at) for at in range(12)]
    local = [one.astimezone(timezone(timedelta(hours=ahead))) for one in when]
    stems = [one.replace(tzinfo=None).isoformat() for one in local[:6]]
    stems += [one.isoformat() for one in when[6:]]
    frames = folder_of(tmp_path, desk(12), stems)
    convert_all([tmp_path / f"{stem}.png" for stem in stems])
    found = await made(tmp_path)
    lost = missing(found)
    assert lost
    assert stems[5] in lost
    assert stems[2] not in lost
    assert "only one of the two names a time zone" in found[lost[0]].reason
    for stem in set(found) - set(lost):
        assert np.array_equal(pixels(found[stem]), frames[stem])


async def test_two_names_of_one_time_leave_open_what_is_behind(tmp_path: Path) -> None:
    stems = ["2024-06-06T10:00:00Z", "2024-06-06T12:01:00+02:00", "2024-06-06T10:01:00Z"]
    stems += ["2024-06-06T10:02:00Z", "2024-06-06T10:03:00Z", "2024-06-06T10:04:00Z"]
    frames = desk(4) + [np.roll(frame, 3, 0) for frame in desk(2, 9)]
    by_stem = folder_of(tmp_path, frames, stems)
    convert(tmp_path, limit=60_000)
    assert (tmp_path / f"{stems[4]}.png").exists()
    found = await made(tmp_path)
    assert missing(found) == sorted(stems[1:4])
    assert "tell the same time" in found[stems[1]].reason
    assert np.array_equal(pixels(found[stems[5]]), by_stem[stems[5]])


async def test_a_picture_of_its_own_needs_no_place(tmp_path: Path) -> None:
    stems = list(minutes(4))
    folder_of(tmp_path, desk(3), stems[:3])
    convert(tmp_path)
    photo = np.random.default_rng(3).integers(0, 255, (200, 240, 4), np.uint8)
    (tmp_path / "20240606T000100Z.jxl").write_bytes(jxl.encode(photo, 3))
    found = await made(tmp_path)
    assert found["20240606T000100Z"].is_picture
    assert missing(found) == sorted([*stems[1:3], "20240606T000100Z"])


# -- a PNG and a `.jxl` of one stem


async def test_a_conversion_that_was_stopped_before_it_deleted_the_png(tmp_path: Path) -> None:
    stems = list(minutes(4))
    frames = folder_of(tmp_path, desk(4), stems)
    convert(tmp_path)
    for count in (3, 30):
        save(tmp_path, stems[2], frames[stems[2]])
        found = await made(tmp_path)
        assert sorted(found) == [stems[1], stems[3]]
        for stem, result in found.items():
            assert np.array_equal(pixels(result), frames[stem])
        # A file that was cut off proves nothing.
        twin = tmp_path / f"{stems[2]}.jxl"
        twin.write_bytes(twin.read_bytes()[:count])


async def test_a_jxl_of_the_same_picture_as_the_png_beside_it(tmp_path: Path) -> None:
    stems = list(minutes(4))
    frames = folder_of(tmp_path, desk(4), stems)
    convert(tmp_path)
    save(tmp_path, stems[2], frames[stems[2]])
    (tmp_path / f"{stems[2]}.jxl").write_bytes(jxl.encode(frames[stems[2]], 1))
    found = await made(tmp_path)
    assert np.array_equal(pixels(found[stems[3]]), frames[stems[3]])


@pytest.mark.parametrize("first", [True, False])
async def test_two_pictures_of_one_stem_leave_open_what_is_behind(
    first: bool, tmp_path: Path
) -> None:
    stems = list(minutes(4))
    folder_of(tmp_path, desk(4), stems)
    convert(tmp_path)
    save(tmp_path, stems[2], desk(4, 7)[2])
    if first:
        # Without a picture before it the kind of the `.jxl` is unknown.
        (tmp_path / f"{stems[0]}.png").unlink()
        (tmp_path / f"{stems[1]}.jxl").unlink()
    found = await made(tmp_path)
    assert f"{stems[2]}.png and {stems[2]}.jxl are different" in found[stems[3]].reason


# -- folders


def test_what_is_a_legacy_folder(tmp_path: Path) -> None:
    plain, deep = tmp_path / "plain", tmp_path / "deep"
    folder_of(plain, desk(3))
    (plain / "notes.jxl").write_bytes(b"\xff\x0a")
    (plain / "2024-06-06T00:00:00Z.jxl").write_bytes(b"no JPEG XL")
    assert not is_legacy(plain)
    folder_of(deep / "2024" / "06", desk(3))
    convert(deep / "2024" / "06")
    assert is_legacy(deep)


async def test_the_tree_of_a_mixed_folder(tmp_path: Path) -> None:
    frames = folder_of(tmp_path / "a", desk(3))
    stems = list(frames)
    convert(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("kept as it is")
    (tmp_path / "b").mkdir()
    save(tmp_path / "b", "logo", desk(1)[0])
    (tmp_path / "b" / "logo2.jxl").write_bytes(jxl.encode(desk(1)[0], 1))
    (tmp_path / "link").symlink_to("a/notes.txt")
    tree = LegacyTree(tmp_path)
    async with tree.running():
        names = [name.decode() for name, _ in await tree.children(b"a")]
        assert names == sorted([f"{stem}.png" for stem in stems] + ["notes.txt"])
        for stem in stems:
            body = await tree.body(f"a/{stem}.png".encode())
            shown = await tree.attributes(f"a/{stem}.png".encode())
            assert shown.size == body.size
            data = await body.pread(0, body.size)
            assert np.array_equal(np.array(Image.open(BytesIO(data))), frames[stem])
        with pytest.raises(FileNotFoundError):
            await tree.attributes(f"a/{stems[1]}.jxl".encode())
        assert [name for name, _ in await tree.children(b"b")] == [b"logo.png", b"logo2.jxl"]
        assert (await tree.attributes(b"b/logo2.jxl")).size is not None
        assert (await tree.attributes(b"link")).target == b"a/notes.txt"
        with pytest.raises(FileNotFoundError):
            await tree.attributes(b"a/nothing.png")
    assert samples(tmp_path / "b" / "logo.png").shape == (200, 240, 4)


@pytest.mark.parametrize("kind", pngs.KINDS)
def test_an_interlaced_png_reads_as_a_plain_one(kind: tuple[int, int]) -> None:
    rows = pngs.make_rows(random.Random(1), 21, 13, *kind, "noise")
    head = pngs.chunk(b"PLTE", bytes(3 << kind[1])) if kind[0] == 3 else b""
    plain, interlaced = (
        read_picture(
            pngs.build(
                pngs.with_types(pngs.Plan(21, 13, rows, b"", *kind, number, head=head), b"\1\4")
            )
        )
        for number in (0, 1)
    )
    assert (plain.head, plain.palette) == (interlaced.head, interlaced.palette)
    assert plain.frame.dtype == interlaced.frame.dtype
    assert np.array_equal(plain.frame, interlaced.frame)
