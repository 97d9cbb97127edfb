"""The detector of photos that look alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fsmount.album.similar import Grouping, PhotoFeatures, correlation, features_of
from tests.support.photos import burst, exif, jpeg, scene


def seen(
    pixels: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]], gap_s: float
) -> list[PhotoFeatures]:
    found = []
    for number, one in enumerate(pixels):
        minutes, seconds = divmod(round(number * gap_s), 60)
        taken = f"2014:07:05 12:{minutes:02d}:{seconds:02d}"
        made = features_of(jpeg(one, exif=exif(1, taken=taken)), 0)
        assert made is not None
        found.append(made)
    return found


def groups(looks: Sequence[PhotoFeatures | None], most: int) -> list[int]:
    grouping = Grouping(most)
    for one in looks:
        grouping.add(one)
    return grouping.sizes


def test_a_burst_is_alike_and_unrelated_photos_are_not() -> None:
    alike = seen(burst(1, 6, 400, 300), 1)
    others = seen([scene(seed, 400, 300) for seed in range(6)], 1)
    near = [correlation(a.thumbnail, b.thumbnail) for a, b in itertools.pairwise(alike)]
    far = [correlation(a.thumbnail, b.thumbnail) for a, b in itertools.pairwise(others)]
    assert min(near) > 0.95
    assert max(far) < 0.8
    assert groups(alike, 8) == [6]
    assert groups(others, 8) == [1] * 6


def test_a_shift_is_no_difference() -> None:
    wide = scene(3, 440, 340)
    first, second = seen([wide[10:310, 10:410], wide[30:330, 25:425]], 1)
    assert correlation(first.thumbnail, second.thumbnail) > 0.93


def test_groups_end_at_their_bound_at_a_pause_and_at_another_scene() -> None:
    assert groups(seen(burst(1, 11, 160, 120), 1), 8) == [8, 3]
    assert groups(seen(burst(1, 3, 160, 120), 11), 8) == [1, 1, 1]
    two = seen([*burst(1, 3, 160, 120), *burst(2, 2, 160, 120)], 1)
    assert groups(two, 8) == [3, 2]
    assert groups([two[0], None, two[1]], 8) == [1, 1, 1]
    assert groups([], 8) == []


def test_other_sizes_are_not_alike() -> None:
    first, second = seen(burst(1, 2, 160, 120), 1)
    turned = PhotoFeatures(second.thumbnail, second.taken_s, (160, 120, 6))
    assert groups([first, turned], 8) == [1, 1]


def test_one_colour_is_like_nothing() -> None:
    flat = np.full((48, 48), 7, np.float32)
    assert correlation(flat, flat) == -1


def test_what_does_not_decode_has_no_look_and_no_time_is_the_files_time() -> None:
    assert features_of(b"nothing", 0) is None
    found = features_of(jpeg(scene(1, 60, 40)), 12_000_000_000)
    assert found is not None
    assert found.taken_s == 12
