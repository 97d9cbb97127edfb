from __future__ import annotations

import random
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fsmount.codec.deflate import deflate
from fsmount.codec.deflate.deflate import Corrections, DeflateParams
from fsmount.codec.png import png, samples
from fsmount.codec.png.png import assemble, parse
from fsmount.codec.png.recipe import MAX_LISTED, Recipe, Split
from fsmount.errors import Damaged, NotExact
from tests.support import corpus, pngs
from tests.support.deflate_inputs import odd_length
from tests.support.pngs import IEND, KINDS, Plan, build, build_around, chunk, make_rows
from tests.support.recipes import round_trip

# Classic zlib cannot re-create these streams. Name -> the largest share of the file that its
# correction record may take.
NOT_ZLIB = {"chrome.png": 0.001, "zlibng_l6.png": 0.001, "isal_l2.png": 0.08}
NOT_ZLIB["libdeflate_l6.png"] = 0.06


def plan(
    width: int = 9,
    height: int = 7,
    kind: tuple[int, int] = (6, 8),
    style: str = "noise",
    interlace: int = 0,
) -> Plan:
    rows = make_rows(random.Random(1), width, height, *kind, style)
    return pngs.with_types(Plan(width, height, rows, b"", *kind, interlace), b"\4\1\2\3\0")


@given(pngs.plans())
@settings(deadline=None)
def test_exact(made: Plan) -> None:
    picture = round_trip(build(made))
    frame, recipe = picture.frame, picture.recipe
    assert recipe.filters == made.types
    assert recipe.head == made.head
    assert recipe.streams[0].behind == made.idat_tail
    assert frame.shape == (
        made.height,
        made.width,
        pngs.CHANNELS[made.colour_type] - recipe.opaque,
    )
    assert frame.dtype == (np.uint16 if made.bit_depth == 16 else np.uint8)
    assert frame.flags.c_contiguous
    layout = samples.SampleLayout(made.width, made.height, made.colour_type, made.bit_depth)
    whole = frame
    if recipe.opaque:
        alpha = np.full_like(frame[..., :1], np.iinfo(frame.dtype).max)
        whole = np.concatenate((frame, alpha), axis=2)
    assert samples.to_rows(whole, layout).tobytes() == b"".join(made.rows)


@given(st.one_of(st.binary(max_size=99), st.binary(max_size=99).map(pngs.SIGNATURE.__add__)))
@example(b"")
@example(pngs.SIGNATURE)
@example(pngs.SIGNATURE + b"\0\0\0\rIHDR")
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(NotExact):
        parse(data)


@given(pngs.near_pngs())
@settings(deadline=None, max_examples=200)
def test_near_pngs(data: bytes) -> None:
    try:
        picture = parse(data)
    except NotExact as refusal:
        assert refusal.detail
    else:
        assert assemble(picture.frame, picture.recipe) == data


@pytest.mark.parametrize("interlace", [0, 1])
# Pillow reduces the other kinds to 8 bits.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[1] < 16 or kind[0] == 0])
def test_pixels_are_those_pillow_sees(
    kind: tuple[int, int], interlace: int, tmp_path: Path
) -> None:
    made = plan(33, 5, kind, interlace=interlace)
    if kind[0] == 3:
        made = replace(made, head=chunk(b"PLTE", bytes(3 << kind[1])))
    path = tmp_path / "a.png"
    path.write_bytes(build(made))
    seen = np.asarray(Image.open(path)).reshape(5, 33, -1)
    frame = round_trip(build(made)).frame
    if kind in ((0, 2), (0, 4)):  # Pillow stretches grey to 8 bits
        seen = seen // (255 // ((1 << kind[1]) - 1))
    assert np.array_equal(frame, seen)


def test_16_bits() -> None:
    row = b"\x01\x02\x03\x04\x05\x06"
    frame = parse(build(Plan(1, 1, (row,), b"\0", 2, 16))).frame
    assert frame.tolist() == [[[0x102, 0x304, 0x506]]]


@pytest.mark.parametrize("kind", [(4, 8), (6, 8), (4, 16), (6, 16)])
def test_opaque_alpha_is_dropped(kind: tuple[int, int]) -> None:
    picture = round_trip(build(plan(kind=kind, style="opaque")))
    assert picture.recipe.opaque
    assert picture.frame.shape[2] == pngs.CHANNELS[kind[0]] - 1
    assert not round_trip(build(plan(kind=kind))).recipe.opaque


@pytest.mark.parametrize(
    ("cuts", "split"),
    [
        ((), 0),
        ((50,) * 5, 50),
        ((0,), (0, "rest")),
        ((50, 0), (50, 0, "rest")),
        ((10, 20), (10, 20, "rest")),
        ((50, 5000), (50, "rest", 0)),
    ],
)
def test_splits(cuts: tuple[int, ...], split: object) -> None:
    made = plan()
    stream_size = len(pngs.zlib_stream(made, pngs.filter_rows(made.rows, made.types, 4)))
    recipe = round_trip(build(replace(made, cuts=cuts))).recipe
    if isinstance(split, tuple):
        rest = stream_size - sum(size for size in split if isinstance(size, int))
        split = tuple(rest if size == "rest" else size for size in split)
    assert recipe.split == split
    if cuts == (50,) * 5:
        assert stream_size > 250


def test_split_without_a_rest() -> None:
    made = plan()
    stream = pngs.zlib_stream(made, pngs.filter_rows(made.rows, made.types, 4))
    half = len(stream) // 2 + 1
    padding = b"x" * (2 * half - len(stream))
    assert round_trip(build(replace(made, cuts=(half,), idat_tail=padding))).recipe.split == half
    more = replace(made, cuts=(half, half), idat_tail=padding)
    assert round_trip(build(more)).recipe.split == (half, half, 0)


def test_the_usual_recipe_is_small() -> None:
    made = replace(plan(style="opaque"), strategy=1, cuts=(50,) * 5)
    recipe = parse(build(made), [DeflateParams(6, 1, 8, 15)]).recipe
    assert recipe.header() == {
        "c": 6,
        "d": 8,
        "o": 1,
        "z": 0x789C,
        "p": [6, 1, 8, 15],
        "i": 50,
    }
    assert recipe.blobs() == (b"\4\1\2\3\0\4\1", b"", IEND, b"", b"", b"")


def test_hints_reach_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = DeflateParams(4, 1, 3, 15)
    seen: list[object] = []

    def search(*args: object, **settings: object) -> DeflateParams:
        seen.append(args[-1])
        return hint

    monkeypatch.setattr(deflate, "search", search)
    assert parse(build(plan()), [hint]).recipe.params == hint
    assert seen == [(hint,)]


REASONS = {
    "not a PNG": b"GIF89a",
    "damaged: IDAT checksum": pngs.DAMAGES["wrong checksum"](plan(), random.Random(1)),
    "damaged: truncated": build(plan())[:100],
    "damaged: no image data": pngs.SIGNATURE + pngs.ihdr(plan()) + IEND,
    "damaged: filter type": pngs.DAMAGES["bad filter"](plan(), random.Random(1)),
    "damaged: zlib header": build_around(plan(), b"no zlib stream"),
    "damaged: deflate stream": build_around(plan(), b"\x78\x9c" + b"\xff" * 40),
    "damaged: zlib checksum": build_around(plan(1, 1), zlib.compress(bytes(5))[:-4] + b"1234"),
    "damaged: more image data": pngs.DAMAGES["bomb"](plan(), random.Random(1)),
    "damaged: no such colour type": pngs.DAMAGES["bad depth"](plan(), random.Random(1)),
    "damaged: IHDR": build(replace(plan(), interlace=2)),
    "bits set beyond": build(Plan(3, 1, (b"\xff",), b"\0", 0, 1)),
    "unknown deflate encoder": build_around(
        Plan(300, 1, (bytes(300),), b"\0", 0),
        b"\x78\x9c" + odd_length(bytes(301)) + zlib.adler32(bytes(301)).to_bytes(4, "big"),
    ),
    "too large": build(replace(plan(), width=1 << 16, height=1 << 16)),
    "too many chunks": build(replace(plan(), cuts=(0,) * MAX_LISTED)),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons(reason: str) -> None:
    with pytest.raises(NotExact) as refusal:
        parse(REASONS[reason])
    assert str(refusal.value.detail).startswith(reason)


@pytest.mark.parametrize("kind", [(0, 2), (6, 8)])
@pytest.mark.parametrize("interlace", [0, 1])
def test_each_byte_changed_and_each_end(kind: tuple[int, int], interlace: int) -> None:
    """Any bytes in, the same bytes out, or a reason."""
    data = build(replace(plan(5, 3, kind, interlace=interlace), cuts=(9,)))
    files = [data[:end] for end in range(len(data))]
    files += [
        data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        for at in range(len(data))
        for flip in (1, 16, 128, 255)
    ]
    exact = 0
    for one in files:
        try:
            picture = parse(one)
        except NotExact as refusal:
            assert refusal.detail
        else:
            exact += 1
            assert assemble(picture.frame, picture.recipe) == one
    # Only IEND may have changed: nothing checks it.
    assert 0 < exact <= 12 * 5


@pytest.mark.parametrize("kind", KINDS)
def test_interlaced_pictures_of_every_small_size(kind: tuple[int, int]) -> None:
    """Passes without pixels are left out."""
    for width in range(1, 10):
        for height in range(1, 10):
            made = plan(width, height, kind, interlace=1)
            recipe = round_trip(build(made)).recipe
            assert recipe.header()["a"] == 1
            assert recipe.filters == made.types


def test_proves_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    # The comparison with the file itself finds an error that no other check finds.
    genuine = png._split
    monkeypatch.setattr(png, "_split", lambda sizes: genuine([sizes[0] + 1, *sizes[1:], 1]))
    with pytest.raises((NotExact, Damaged)):
        parse(build(replace(plan(), cuts=(50,) * 4)))


def test_too_many_head_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "MAX_CHUNKS", 10)
    head = chunk(b"teSt", b"")
    assert parse(build(replace(plan(), head=head * 9))).recipe.head == head * 9
    with pytest.raises(NotExact, match="too many chunks"):
        parse(build(replace(plan(), head=head * 10)))
    with pytest.raises(NotExact, match="too many chunks"):
        parse(build(replace(plan(), cuts=(1,) * 10)))


def test_too_large_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(plan())
    monkeypatch.setattr(png, "MAX_FILE", len(data))
    parse(data)
    with pytest.raises(NotExact, match="too large"):
        parse(data + b"\0")


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (10_000, 10_000), (10_240, 10_240), (1 << 20, 99), ((1 << 20) + 1, 1)],
)
def test_bombs_cost_nothing(width: int, height: int) -> None:
    stream = zlib.compress(bytes(64 << 20), 9)
    if width * height == 1:
        reason = "more image data"
    elif width == 10_000 or height == 99:
        reason = "truncated"
    else:
        reason = "too large"
    short = stream if reason == "more image data" else zlib.compress(b"")
    data = build_around(replace(plan(), width=width, height=height), short)
    tracemalloc.start()
    try:
        with pytest.raises(NotExact, match=reason):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def good() -> tuple[dict[str, Any], list[Any]]:
    recipe = parse(build(plan())).recipe
    return recipe.header(), list(recipe.blobs())


@pytest.mark.parametrize(
    "change",
    [
        {"c": 1},
        {"c": "6"},
        {"c": None},
        {"d": 4},
        {"d": 8.0},
        {"o": 2},
        {"o": True},
        {"c": 2, "o": 1},
        {"z": 65536},
        {"z": -1},
        {"p": [6, 1, 8]},
        {"p": [6, 1, 8, 8]},
        {"p": [0, 1, 8, 15]},
        {"p": [6, 5, 8, 15]},
        {"p": "6189"},
        {"p": [6, 1, 8, [15]]},
        {"i": -1},
        {"i": 1 << 40},
        {"i": []},
        {"i": [1, -1]},
        {"i": "1"},
        {"extra": 1},
    ],
)
def test_hostile_headers(change: dict[str, object]) -> None:
    header, blobs = good()
    Recipe.from_parts(header, blobs)
    with pytest.raises(Damaged):
        Recipe.from_parts(header | change, blobs)


def test_hostile_parts() -> None:
    header, blobs = good()
    for missing in header:
        with pytest.raises(Damaged):
            Recipe.from_parts({k: v for k, v in header.items() if k != missing}, blobs)
    for parts in ([], blobs[:3], [*blobs, b""], [b"", *blobs[1:]], [b"\5", *blobs[1:]]):
        with pytest.raises(Damaged):
            Recipe.from_parts(header, parts)
    with pytest.raises(Damaged):
        Recipe.from_parts(header, [*blobs[:3], cast(bytes, 1 << 60)])


def test_frame_must_fit_the_recipe() -> None:
    picture = parse(build(plan()))
    frame, recipe = picture.frame, picture.recipe
    wrong = [
        frame[0],
        frame[:-1],
        frame[:, :0],
        frame[..., :3],
        frame.astype(np.uint16),
        frame.astype(np.float64),
    ]
    for other in wrong:
        with pytest.raises(Damaged):
            assemble(other, recipe)
    assert assemble(frame[:, ::-1][:, ::-1], recipe) == build(plan())

    small = parse(build(plan(kind=(0, 2))))
    with pytest.raises(Damaged, match="bit depth"):
        assemble(np.full_like(small.frame, 4), small.recipe)


def with_split(recipe: Recipe, split: Split) -> Recipe:
    return replace(recipe, streams=(replace(recipe.streams[0], split=split),))


@pytest.mark.parametrize("split", [(1, 2), (1 << 20,)])
def test_split_must_fit_the_stream(split: tuple[int, ...]) -> None:
    picture = parse(build(plan()))
    with pytest.raises(Damaged, match="IDAT"):
        assemble(picture.frame, with_split(picture.recipe, split))


def test_split_must_not_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = parse(build(plan()))
    monkeypatch.setattr(png, "MAX_CHUNKS", 10)
    with pytest.raises(Damaged, match="IDAT"):
        assemble(picture.frame, with_split(picture.recipe, 1))


def test_screenshots_of_real_programs() -> None:
    for path in corpus.files("encoders"):
        data = path.read_bytes()
        picture = round_trip(data)
        params = picture.recipe.params
        if isinstance(params, Corrections):
            assert len(params.record) <= NOT_ZLIB[path.name] * len(data), path.name
        if not picture.recipe.opaque:
            seen = np.asarray(Image.open(path)).reshape(picture.frame.shape)
            assert np.array_equal(picture.frame, seen), path.name


def test_a_desktop_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search finds the right parameters at its first try."""
    made = 0
    genuine = deflate.deflate

    def counting(*args: Any, **settings: Any) -> bytes:
        nonlocal made
        made += 1
        return genuine(*args, **settings)

    monkeypatch.setattr(deflate, "deflate", counting)
    files = corpus.files("desk", one_in=6)
    for path in files:
        round_trip(path.read_bytes())
    # One deflate run proves the parameters, one makes the file again.
    assert made == 2 * len(files)


def test_a_match_written_in_the_long_way_is_no_damage() -> None:
    """No record can express such a match, so the file stays raw. Its pixels are readable."""
    data = REASONS["unknown deflate encoder"]
    frame, _, _ = png.read(data)
    assert frame.shape == (1, 300, 1)
    assert not frame.any()
