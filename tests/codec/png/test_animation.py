from __future__ import annotations

import io
import itertools
import json
import random
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import png
from fsmount.codec.png.png import assemble, parse
from fsmount.codec.png.recipe import Recipe
from fsmount.errors import Damaged, NotExact
from tests.support import animations, pngs
from tests.support.animations import Animation, Part, build, chunks, fctl, fdats
from tests.support.pngs import IEND, KINDS, Plan, chunk, make_rows
from tests.support.recipes import round_trip


def plan(width: int, height: int, seed: int = 1, kind: tuple[int, int] = (2, 8)) -> Plan:
    rows = make_rows(random.Random(seed), width, height, *kind, "noise")
    return pngs.with_types(Plan(width, height, rows, b"", *kind), b"\4\1\2\3\0")


def small() -> Animation:
    """A canvas of 40 x 20, a picture of the same size, and one of 9 x 5."""
    parts = Part(plan(40, 20, 2)), Part(plan(9, 5, 3), 30, 10)
    return Animation(plan(40, 20), parts)


@given(animations.animations())
@settings(deadline=None)
def test_exact(made: Animation) -> None:
    recipe = round_trip(build(made)).recipe
    assert len(recipe.streams) == 1 + len(made.parts)
    assert recipe.filters == made.canvas.types + b"".join(part.plan.types for part in made.parts)
    for stream, part in zip(recipe.streams[1:], made.parts, strict=True):
        assert stream.behind == part.plan.idat_tail
        assert stream.before[:-38] == part.before


@given(st.integers(0, 1 << 32), pngs.plans(20))
@settings(deadline=None, max_examples=200)
def test_near_animations(seed: int, canvas: Plan) -> None:
    data = animations.near(random.Random(seed), canvas)
    try:
        picture = parse(data)
    except NotExact as refusal:
        assert refusal.detail
    else:
        assert assemble(picture.frame, picture.recipe) == data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interlace", [0, 1])
def test_each_kind(kind: tuple[int, int], interlace: int) -> None:
    source = random.Random(1)
    rows = make_rows(source, 37, 21, *kind, "opaque")
    canvas = Plan(37, 21, rows, b"", *kind, interlace)
    canvas = pngs.with_types(canvas, b"\4\1\2\3\0")
    picture = round_trip(build(animations.animation(source, canvas, 4)))
    assert picture.recipe.interlaced == bool(interlace)


def test_pillow_sees_the_same_pictures() -> None:
    """Without blending, each picture is an area of what the frame shows."""
    data = build(small())
    frame = round_trip(data).frame
    image = Image.open(io.BytesIO(data))
    seen = []
    for number in range(3):
        image.seek(number)
        seen.append(np.asarray(image.convert("RGB")))
    assert frame.shape == (32 + 32 + 16, 48, 3)
    assert np.array_equal(frame[:20, :40], seen[0])
    assert np.array_equal(frame[32:52, :40], seen[1])
    assert np.array_equal(frame[64:69, :9], seen[2][10:15, 30:39])
    assert (frame[:, 40:] == 255).all()
    assert (frame[20:32] == 255).all()
    assert (frame[64:, 9:] == 255).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "I;16"])
@pytest.mark.parametrize("extra", [False, True])
def test_files_that_pillow_writes(mode: str, extra: bool) -> None:
    source = np.random.default_rng(1)
    pixels = source.integers(0, 256, (50, 90, 3), np.uint8)
    images = []
    for _ in range(5):
        pixels = pixels.copy()
        top, left = source.integers(0, 40, 2).tolist()
        pixels[top : top + 8, left : left + 20] = source.integers(0, 256, 3, np.uint8)
        images.append(Image.fromarray(pixels).convert("I" if mode == "I;16" else mode))
    if mode == "I;16":
        images = [Image.fromarray(np.asarray(one).astype(np.uint16)) for one in images]
    out = io.BytesIO()
    images[0].save(
        out, "PNG", save_all=True, append_images=images[1:], default_image=extra, duration=50
    )
    assert len(round_trip(out.getvalue()).recipe.streams) == 5


def test_streams_of_another_encoder() -> None:
    source = random.Random(4)
    rows = make_rows(source, 60, 40, 2, 8, "bars")
    canvas = pngs.with_types(Plan(60, 40, rows, b"", 2, 8), b"\0")
    made = animations.animation(source, canvas, 0)
    part = Part(canvas)
    recipe = round_trip(build(replace(made, parts=(part, part)), flush=True)).recipe
    assert [bool(stream.blobs()[2]) for stream in recipe.streams] == [False, True, True]
    assert recipe.has_corrections


def test_a_tile_that_has_not_changed_is_left_out() -> None:
    canvas = plan(64, 48)
    rows = list(canvas.rows)
    rows[20] = rows[20][:60] + bytes(3) + rows[20][63:]
    after = replace(canvas, rows=tuple(rows))
    picture = round_trip(build(Animation(canvas, (Part(after), Part(canvas), Part(canvas)))))
    frame = picture.frame
    assert frame.shape == (48 + 16, 64, 3)
    assert (frame[48:64, :16] == frame[16:32, 16:32]).mean() > 0.9
    # The third picture undoes the change: its tile is there once more. The fourth changes nothing.
    assert np.array_equal(frame[48:64, 16:32], frame[16:32, 16:32])
    assert (frame[48:64, 32:] == 255).all()
    assert picture.recipe.repeated == b"\xfb\xff\xbf\xff\xf0"


def test_tiles_stand_side_by_side() -> None:
    parts = tuple(Part(plan(10, 9, seed), 5, 5) for seed in range(7))
    frame = round_trip(build(Animation(plan(60, 20), parts))).frame
    assert frame.shape == (32 + 16 + 16, 64, 3)


def test_opaque_alpha_is_dropped_from_all_pictures() -> None:
    made = small()
    rows = make_rows(random.Random(1), 40, 20, 6, 8, "opaque")
    canvas = pngs.with_types(Plan(40, 20, rows, b"", 6, 8), b"\4")
    part = animations.changed(random.Random(3), canvas)
    assert (
        round_trip(build(replace(made, canvas=canvas, parts=(Part(canvas),)))).frame.shape[2] == 3
    )
    clear = replace(part.plan, rows=tuple(bytes(len(row)) for row in part.plan.rows))
    made = Animation(canvas, (replace(part, plan=clear),))
    assert round_trip(build(made)).frame.shape[2] == 4


def test_an_animation_of_one_picture_is_an_ordinary_picture() -> None:
    picture = round_trip(build(replace(small(), parts=())))
    assert set(picture.recipe.header()) == set("cdozpi")
    assert picture.frame.shape == (20, 40, 3)


def test_fdat_without_actl_is_no_animation() -> None:
    parts = [one for one in chunks(small()) if one[4:8] != b"acTL"]
    assert len(round_trip(b"".join(parts)).recipe.streams) == 1


def reordered(*order: int) -> bytes:
    parts = chunks(small())
    return b"".join(parts[number] for number in order)


# 0: signature, 1: IHDR, 2: head, 3: acTL, 4: fcTL, 5: IDAT, 6: before, 7: fcTL, 8: fdAT, 9: before,
# 10: fcTL, 11: fdAT, 12: tail.
def test_order_of_chunks_is_as_written_above() -> None:
    kinds = [one[4:8] for one in chunks(small())]
    assert kinds[3:] == [
        *(b"acTL", b"fcTL", b"IDAT", b"", b"fcTL", b"fdAT", b"", b"fcTL", b"fdAT", b"IEND")
    ]
    assert reordered(*range(13)) == build(small())


def many(count: int) -> bytes:
    one = plan(1, 1)
    parts = [*chunks(replace(small(), parts=()))[:-1]]
    for number in range(count):
        parts += [fctl(2 * number, one), *fdats(2 * number + 1, one)]
    return b"".join([*parts, IEND])


def giant(width: int, height: int) -> bytes:
    size = replace(plan(1, 1), width=width, height=height)
    made = small()
    parts = chunks(made)
    parts[1] = pngs.ihdr(replace(made.canvas, width=width, height=height))
    parts[7] = fctl(1, size)
    return b"".join(parts)


REASONS = {
    "animated: no fcTL before fdAT": reordered(*range(7), 8, 7, *range(9, 13)),
    "animated: a picture outside": animations.DAMAGES["outside"](small(), random.Random(1)),
    "animated: sequence numbers": reordered(*range(8), 11, 12),
    "damaged: fdAT checksum": build(small())[:-20] + b"?" + build(small())[-19:],
    "damaged: truncated": build(small())[:-30],
    "damaged: fdAT": reordered(*range(11), 12)[:-12] + chunk(b"fdAT", b"\0\0\0") + IEND,
    "too many pictures": many(5000),
    "too large": giant(1 << 20, 99),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons(reason: str) -> None:
    with pytest.raises(NotExact) as refusal:
        parse(REASONS[reason])
    assert str(refusal.value.detail).startswith(reason)


def test_an_unknown_chunk_between_two_fdats() -> None:
    made = small()
    cut = replace(made.parts[1], plan=replace(made.parts[1].plan, cuts=(20,)))
    parts = chunks(replace(made, parts=(made.parts[0], cut)))
    assert [one[4:8] for one in parts[-3:]] == [b"fdAT", b"fdAT", b"IEND"]
    parts.insert(-2, chunk(b"teSt", b""))
    with pytest.raises(NotExact, match="no fcTL before fdAT"):
        parse(b"".join(parts))


@pytest.mark.parametrize("size", [(1 << 30, 1 << 30), (1 << 20, 130), (10_000, 10_000)])
def test_bombs_cost_nothing(size: tuple[int, int]) -> None:
    data = giant(*size)
    tracemalloc.start()
    try:
        with pytest.raises(NotExact, match=r"too large|truncated"):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_sheet_beyond_the_limit_is_not_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(small())
    for name, limit in (("MAX_FRAME", 80 * 48 * 3), ("MAX_SIDE", 80)):
        with monkeypatch.context() as context:
            context.setattr(png, name, limit)
            parse(data)
            context.setattr(png, name, limit - 1)
            with pytest.raises(NotExact, match="too large"):
                parse(data)


def test_chunks_of_all_pictures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    data = many(50)
    monkeypatch.setattr(png, "MAX_CHUNKS", 110)
    parse(data)
    monkeypatch.setattr(png, "MAX_CHUNKS", 90)
    with pytest.raises(NotExact, match="too many chunks"):
        parse(data)


def tiny() -> bytes:
    """A file of few bytes, with three pictures."""
    canvas = plan(4, 3, kind=(0, 8))
    cut = replace(plan(2, 2, kind=(0, 8)), cuts=(4,))
    return build(Animation(canvas, (Part(cut, 1, 1), Part(plan(1, 1, kind=(0, 8)), 3, 2))))


def test_each_byte_changed_and_each_end() -> None:
    """Any bytes in, the same bytes out, or a reason."""
    data = tiny()
    exact = 0
    files = [data[:end] for end in range(len(data))]
    files += [
        data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        for at, flip in itertools.product(range(len(data)), (1, 16, 128, 255))
    ]
    memory = WorkerMemory()
    for one in files:
        try:
            picture = parse(one, memory=memory)
        except NotExact as refusal:
            assert refusal.detail
        else:
            exact += 1
            assert assemble(picture.frame, picture.recipe) == one
    # Changes of checksums that nothing checks, of times, and of unknown fields.
    assert 0 < exact < len(files) / 2


def good() -> tuple[dict[str, Any], list[bytes]]:
    recipe = parse(build(small())).recipe
    return json.loads(json.dumps(recipe.header())), list(recipe.blobs())


@pytest.mark.parametrize(
    "change",
    [
        {"f": 5},
        {"f": [[30876, [6, 0, 8, 15], 0]]},
        {"f": [[30876, [6, 0, 8, 15], 0, 38, 0, -1]]},
        {"f": [[30876, [6, 0, 8, 15], 0, 38, 0, 1]]},
        {"f": [[30876, [6, 0, 8, 16], 0, 38, 0, 0]]},
        {"f": [[30876, [6, 0, 8, 15], 0, 1000, 0, 0]]},
        {"f": [5]},
        {"s": [40]},
        {"s": [40, -1]},
        {"s": 40},
        {"a": 2},
    ],
)
def test_hostile_headers(change: dict[str, object]) -> None:
    header, blobs = good()
    Recipe.from_parts(header, blobs)
    with pytest.raises(Damaged):
        Recipe.from_parts(header | change, blobs)
    for key in "sf":
        with pytest.raises(Damaged):
            Recipe.from_parts({name: v for name, v in header.items() if name != key}, blobs)


@pytest.mark.parametrize(
    "change",
    [
        {"f": []},
        {"f": [[30876, [6, 0, 8, 15], 0, 37, 0, 0], [30876, [6, 0, 8, 15], 0, 38, 0, 0]]},
        {"f": [[30876, [6, 0, 8, 15], 0, 38, 0, 0]]},
        {"s": [40, 19]},
        {"s": [39, 20]},
        {"s": [33, 20]},
        {"s": [40, 0]},
        {"s": [0, 20]},
        {"s": [1 << 20, 1 << 20]},
        {"a": 1},
    ],
)
def test_recipes_that_fit_no_frame(change: dict[str, object]) -> None:
    header, blobs = good()
    frame = parse(build(small())).frame
    assert assemble(frame, Recipe.from_parts(header, blobs)) == build(small())
    recipe = Recipe.from_parts(header | change, blobs)
    with pytest.raises(Damaged):
        assemble(frame, recipe)


def _changed(source: random.Random, value: Any) -> Any:
    """A value of a header with a change somewhere in it."""
    if isinstance(value, dict):
        key = source.choice(sorted(value))
        return value | {key: _changed(source, value[key])}
    if isinstance(value, list) and value and source.random() < 0.9:
        at = source.randrange(len(value))
        return [*value[:at], _changed(source, value[at]), *value[at + 1 :]]
    numbers = [0, 1, 2, 16, 38, 255, 1 << 20, 1 << 31, -1]
    return source.choice([*numbers, [], "x", None, 1.5])


@given(st.integers(0, 1 << 32))
def test_a_changed_recipe_gives_damage_or_another_file(seed: int) -> None:
    source = random.Random(seed)
    header, blobs = good()
    frame = parse(build(small())).frame
    for _ in range(source.randint(0, 2)):
        header = _changed(source, header)
    if source.random() < 0.7:
        at = source.randrange(len(blobs))
        blob = bytearray(blobs[at] or b"?")
        blob[source.randrange(len(blob))] ^= 1 << source.randrange(8)
        blobs[at] = source.choice([bytes(blob), bytes(blob)[:-1], bytes(blob) + b"\0"])
    if source.random() < 0.3:
        frame = frame[: source.choice([16, 79, 80]), : source.choice([16, 40, 48])]
    try:
        made = assemble(frame, Recipe.from_parts(header, blobs))
    except Damaged as damage:
        assert str(damage)
    else:
        assert made.startswith(pngs.SIGNATURE)


def test_repeated_tiles_must_fit_the_pictures() -> None:
    picture = parse(build(small()))
    for repeated in (bytes(2), bytes(3), b"\x80", bytes(1 << 20)):
        with pytest.raises(Damaged, match="other pictures"):
            assemble(picture.frame, replace(picture.recipe, repeated=repeated))


def test_animations_are_not_read_as_a_single_picture() -> None:
    with pytest.raises(NotExact, match="animated"):
        png.read(build(small()))
