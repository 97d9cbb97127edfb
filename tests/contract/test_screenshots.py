"""Generated screenshots: as libpng writes them, the same in each run, and changed in few places."""

from __future__ import annotations

import io
import zlib
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.png.png import parse
from tests.bench import archive
from tests.bench.screenshots import PngWriter, Screen, fill, pictures
from tests.bench.wallpapers import made_up
from tests.support.pngs import filter_rows, image_data

PAPERS = made_up()[:2]
SIZE = 240, 160


def test_each_file_shows_its_image() -> None:
    screen, writer = Screen(*SIZE, PAPERS), PngWriter()
    for _ in range(4):
        shown = Image.open(io.BytesIO(writer.png(screen.image)))
        assert np.array_equal(np.asarray(shown), np.asarray(screen.image))
        screen.act()


def test_the_streams_are_those_of_classic_zlib() -> None:
    for data in pictures(*SIZE, 3, PAPERS):
        raw = zlib.decompress(image_data(data))
        maker = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED)
        assert maker.compress(raw) + maker.flush() == image_data(data)
        assert parse(data).recipe.params == DeflateParams(6, 1, 8, 15)


def test_filters_are_those_with_the_least_sum() -> None:
    screen, writer = Screen(60, 50, PAPERS), PngWriter()
    for _ in range(3):
        recipe = parse(writer.png(screen.image)).recipe
        frame = np.asarray(screen.image)
        rows = [row.tobytes() for row in frame.reshape(len(frame), -1)]
        assert recipe.filters == bytes(_cheapest(rows, at) for at in range(len(rows)))
        screen.act()


def _cheapest(rows: list[bytes], at: int) -> int:
    """The filter with the least sum of a row, by the plain filters of the tests."""
    some = rows[max(0, at - 1) : at + 1]

    def cost(kind: int) -> int:
        types = bytes(len(some) - 1) + bytes([kind])
        line = filter_rows(some, types, 3)[-len(rows[0]) :]
        return sum(min(byte, 256 - byte) for byte in line)

    return min(range(5), key=cost)


def test_each_run_makes_the_same_files(tmp_path: Path) -> None:
    first, second = (fill(tmp_path / name, *SIZE, 3, PAPERS) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len({path.read_bytes() for path in first}) == 3


def test_an_idle_screen_changes_its_bar_alone() -> None:
    screen = Screen(*SIZE, PAPERS)
    before = np.asarray(screen.image).copy()
    screen.tick()
    changed = (np.asarray(screen.image) != before).any(axis=(1, 2))
    assert 0 < changed.sum() < 30
    screen.act()


def test_large_screens_show_several_desktops() -> None:
    whole = np.asarray(Screen(3840, 2160, PAPERS).image)
    parts = [whole[y : y + 1080, x : x + 1920] for y in (0, 1080) for x in (0, 1920)]
    assert len({part.tobytes() for part in parts}) == 4


def test_an_archive_has_several_sizes_and_changes_little_by_night() -> None:
    sizes = (SIZE, (200, 120))
    frames = [parse(data).frame for data in archive.shots(60, 8, PAPERS, sizes)]
    assert {frame.shape[1::-1] for frame in frames} == set(sizes)
    night = islice(pairwise(frames), 2)
    assert all((a != b).any(axis=(1, 2)).sum() < 30 for a, b in night)
