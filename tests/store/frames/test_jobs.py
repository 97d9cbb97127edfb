"""Jobs in workers: look, encode, render. Each is exact with any plan, or raises an error."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from fsmount.codec.delta import delta, payload, record
from fsmount.codec.delta.delta import Copy, Fill, Layer, TileLayout
from fsmount.codec.delta.record import Record
from fsmount.codec.images import images
from fsmount.errors import Damaged, FsmountError, NotExact
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.planner import MAX_LEVEL, Plan
from fsmount.store.frames.reader import Reader
from fsmount.store.frames.relations import References, Relations
from fsmount.store.packs import entries
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, Pack, build_entry
from tests.support.animations import Animation, Part, animations
from tests.support.animations import build as build_animation
from tests.support.encoding import Line, forget_caches
from tests.support.frames import png, screens
from tests.support.pngs import KINDS, build, make_rows, near_pngs, pngs, with_types
from tests.support.pngs import Plan as PngPlan


@pytest.fixture
def line(tmp_path: Path) -> Line:
    forget_caches()
    return Line(tmp_path)


def variants(colour_type: int, bit_depth: int, count: int) -> list[bytes]:
    """A sequence of PNG files of one kind that differ in some rows."""
    source = random.Random(colour_type * 100 + bit_depth)
    rows = list(make_rows(source, 50, 70, colour_type, bit_depth, "noise"))
    out = []
    for number in range(count):
        at = 20 * (number % 3)
        rows[at : at + 9] = make_rows(source, 50, 9, colour_type, bit_depth, "flat")
        out.append(
            build(PngPlan(50, 70, tuple(rows), bytes([number % 5]) * 70, colour_type, bit_depth))
        )
    return out


@pytest.mark.parametrize(("colour_type", "bit_depth"), KINDS)
def test_a_sequence_of_every_kind_comes_back(line: Line, colour_type: int, bit_depth: int) -> None:
    files = variants(colour_type, bit_depth, 4)
    for data in [*files, files[1]]:
        assert not line.add(data).fell_back
    assert line.encoded[1].kind == "key"
    assert line.encoded[5].kind == "delta"
    assert line.encoded[5].entry.suffix == payload.NOTHING
    line.check()


def test_opaque_and_clear_pictures_in_turn(line: Line) -> None:
    frames = screens(4)
    for number, frame in enumerate(frames):
        alpha = np.full((*frame.shape[:2], 1), 255 - number % 2, np.uint8)
        line.add(png(np.concatenate([frame, alpha], axis=2)))
        line.add(png(frame))
    line.check()


def test_a_desktop_costs_little(line: Line) -> None:
    for frame in screens(24):
        line.add(png(frame))
    line.check()
    sizes = [place.length for place in line.places.values()]
    assert sum(sizes[8:]) < sizes[0] / 4, "windows seen before are coded again"
    assert {encoded.kind for encoded in line.encoded.values()} == {"key", "delta"}
    assert any(encoded.proof.references.anchor for encoded in line.encoded.values())
    assert len(line.rows[24].needs) <= 24 + 2


def test_residuals_are_used_and_nest_within_bounds(line: Line) -> None:
    """A picture that brightens slightly everywhere is predicted best from the one before it."""
    source = np.random.default_rng(1)
    frame = source.integers(0, 200, (80, 80, 3), np.uint8)
    for number in range(8):
        line.add(png(frame + np.uint8(number)))
    line.check()
    assert any(encoded.layout.predicted().any() for encoded in line.encoded.values())
    assert max(row.depth for row in line.rows.values()) <= 1 + MAX_LEVEL


def test_depth_layer_and_needs_say_what_a_render_reads(line: Line) -> None:
    frame = screens(1)[0]
    line.add(png(frame))
    brighter = frame + np.uint8(1)
    line.add(png(brighter))
    line.add(png(brighter))
    first, second, third = (line.rows[number] for number in (1, 2, 3))
    assert line.encoded[1].kind == "key"
    assert first == Relations(needs=(), layer=(), depth=0)
    assert line.encoded[2].layout.predicted().any()
    assert (second.depth, second.needs) == (1, (1,))
    anchor = line.encoded[3].proof.references.anchor
    assert third == Relations(needs=(1, 2), layer=(anchor,) if anchor else (), depth=2)


def test_a_render_without_one_of_its_needs_is_damage(line: Line) -> None:
    for frame in screens(12):
        line.add(png(frame))
    for number, row in line.rows.items():
        sha256 = hashlib.sha256(line.files[number]).digest()
        for missing in row.needs:
            places = [line.places[known] for known in row.needs if known != missing]
            line.forget()
            with pytest.raises(Damaged):
                jobs.render(line.places[number], places, sha256)


def test_needs_are_complete_when_the_caches_are_warm(line: Line) -> None:
    """Encode with cached layers. Render with empty caches."""
    for frame in screens(10):
        line.add(png(frame))
        for number in line.files:
            line.render(number)
    line.check()
    for number in line.files:
        line.forget()
        assert line.render(number) == line.files[number]


def test_no_layer_is_decoded_twice_in_a_job(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    for frame in screens(10):
        line.add(png(frame))
    genuine, decoded = Reader.decode, []

    def decode(
        self: Reader, entry: Entry, layout: TileLayout, nesting: int = 0
    ) -> tuple[Layer, int]:
        decoded.append(entry.object_id)
        return genuine(self, entry, layout, nesting)

    monkeypatch.setattr(Reader, "decode", decode)
    most = 0
    for number in line.files:
        line.forget()
        decoded.clear()
        assert line.render(number) == line.files[number]
        assert len(set(decoded)) == len(decoded)
        most = max(most, len(decoded))
    assert most > 2


# -- wrong plans, damaged references


def lie(line: Line, data: bytes, sources: tuple[delta.Source, ...], slot: int = 1) -> Plan:
    seen = line.look(data)
    assert seen.features is not None
    grid = seen.features.signatures.shape
    tiles = np.full(grid, slot, np.uint8)
    return Plan(tiles, sources, np.zeros(grid, np.uint8), 0)


@pytest.mark.parametrize(
    "source",
    [Copy(1), Copy(1, 3, 5), Copy(1, -500, 0), Copy(99), None, Fill((1, 2, 3)), Fill((1,))],
)
def test_a_plan_that_lies_costs_space_only(line: Line, source: delta.Source) -> None:
    """Two tiles with the same signature lead to such a plan."""
    first, second = (png(frame) for frame in screens(2))
    line.add(first)
    places = dict(line.places)
    order, _ = line.order(second, lie(line, second, ()))
    tiles = np.ones_like(order.plan.tiles)
    order = replace(
        order,
        plan=Plan(tiles, (source,), np.zeros_like(tiles), 0),
        places=tuple(places.values()),
    )
    encoded = jobs.encode(order).result
    # The encoder compares readable sources, and codes only tiles that differ. It ignores others.
    readable = source in (Copy(1), Fill((1, 2, 3)))
    assert encoded.fell_back != readable
    line.append(order, encoded)
    line.files[2] = second
    expected = ("delta", (1,)) if source == Copy(1) else ("key", ())
    assert (encoded.kind, line.rows[2].needs) == expected
    line.check()


def test_one_wrong_tile_is_coded(line: Line) -> None:
    frame = screens(1)[0]
    line.add(png(frame))
    changed = frame.copy()
    changed[50, 100, 1] ^= 1
    data = png(changed)
    plan = lie(line, data, (Copy(1),))
    plan.tiles[0, 0] = 0
    encoded = line.add(data, plan)
    assert not encoded.fell_back
    assert np.argwhere(encoded.layout.own()).tolist() == [[0, 0], [3, 6]]
    line.check()


def test_a_wrong_guess_costs_nothing(line: Line) -> None:
    first, second = screens(2)
    line.add(png(first))
    plan = lie(line, png(second), (Copy(1),), slot=0)
    plan.guess[:] = 1
    assert not line.add(png(second), plan).fell_back
    line.check()


def test_a_damaged_reference_means_a_keyframe(line: Line) -> None:
    frames = screens(3)
    for frame in frames[:2]:
        line.add(png(frame))
    order, _ = line.order(png(frames[2]))
    assert 1 in {getattr(source, "object", 0) for source in order.plan.sources}
    place = line.places[1]
    whole = line.pack.path.read_bytes()
    data = bytearray(whole)
    data[place.offset + place.length // 2] ^= 1
    line.pack.path.write_bytes(data)
    line.forget()
    encoded = jobs.encode(order).result
    assert encoded.fell_back
    assert encoded.proof.references == References((), (), 0)
    line.forget()
    with pytest.raises(Damaged):
        line.render(1)


def test_an_anchor_that_is_gone_means_a_keyframe(line: Line) -> None:
    frames = screens(2)
    line.add(png(frames[0]))
    order, _ = line.order(png(frames[0]))
    assert order.plan.anchor == 1
    line.forget()
    encoded = jobs.encode(replace(order, places=())).result
    assert encoded.fell_back
    assert encoded.proof.references.anchor == 0


def test_a_frame_one_tile_wide_comes_back(line: Line) -> None:
    source = np.random.default_rng(3)
    frame = source.integers(0, 256, (64, 16, 3), np.uint8)
    line.add(png(frame))
    for number in range(1, 4):
        frame = frame.copy()
        frame[16 * number : 16 * number + 16] += np.uint8(number)
        assert not line.add(png(frame)).fell_back
    line.check()


def test_a_keyframe_that_fails_is_not_exact(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    order, _ = line.order(png(screens(1)[0]))
    wrong = images.encode(np.zeros_like(order.picture.frame))
    monkeypatch.setattr(images, "encode", lambda image, fast: wrong)
    with pytest.raises(NotExact):
        jobs.encode(order)


def test_a_record_that_cannot_be_read_back_is_not_exact(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, _ = line.order(png(screens(1)[0]))
    monkeypatch.setattr(record, "MAX_PLAIN", 10)
    with pytest.raises(NotExact):
        jobs.encode(order)


# -- render


def test_no_flipped_bit_gives_other_bytes(line: Line) -> None:
    for frame in screens(6, height=40, width=60):
        line.add(png(frame))
    whole = line.pack.path.read_bytes()
    source = random.Random(1)
    number = 6
    reads = [line.places[known] for known in (*line.rows[number].needs, number)]
    noticed = 0
    for _ in range(400):
        place = source.choice(reads)
        data = bytearray(whole)
        data[source.randrange(place.offset, place.offset + place.length)] ^= 1 << source.randrange(
            8
        )
        line.pack.path.write_bytes(data)
        line.forget()
        try:
            assert line.render(number) == line.files[number]
        except Damaged:
            noticed += 1
    assert noticed > 350
    line.pack.path.write_bytes(whole)
    line.check()


def _sha256(line: Line, number: int) -> bytes:
    return hashlib.sha256(line.files[number]).digest()


def test_a_hash_that_is_not_the_index_s_is_damage(line: Line) -> None:
    line.add(png(screens(1)[0]))
    with pytest.raises(Damaged):
        jobs.render(line.places[1], [], bytes(32))


def test_entries_that_are_exchanged_are_damage(line: Line) -> None:
    for frame in screens(2):
        line.add(png(frame))
    one, two = line.places[1], line.places[2]
    with pytest.raises(Damaged):
        jobs.render(Location(1, two.pack, two.offset, two.length), [one], _sha256(line, 2))
    line.forget()
    with pytest.raises(Damaged):
        jobs.render(two, [Location(1, two.pack, two.offset, two.length)], _sha256(line, 2))


def test_raw_files_come_back_and_are_checked(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "00000001.zip", 1, Disk(), 0)
    path = tmp_path / "note.TXT"
    path.write_bytes(b"not a picture")
    look = jobs.look(str(path), ())
    assert (look.picture, look.features, look.size) == (None, None, 13)
    assert look == jobs.look_raw(str(path), look.reason)
    entry = entries.raw_entry(
        FileFacts(7, "a/\udcff/note.TXT", -5, look.sha256, 13), look.reason, b"not a picture"
    )
    assert entry.name == "00000007.txt"
    place = Location(7, str(pack.path), *pack.append(entry))
    assert jobs.render(place, [], look.sha256).result == b"not a picture"
    data = bytearray(pack.path.read_bytes())
    wrong = entries.raw_entry(FileFacts(8, "x", 0, look.sha256, 13), look.reason, b"not a pictura")
    with pytest.raises(Damaged):
        jobs.render(Location(8, str(pack.path), *pack.append(wrong)), [], look.sha256)
    assert pack.path.read_bytes().startswith(data)
    pack.close()


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        ("a.png", ".png"),
        ("a.JPEG", ".jpeg"),
        ("a", ".bin"),
        ("a.", ".bin"),
        (".hidden", ".bin"),
        ("a.rec", ".bin"),
        ("a.nil", ".bin"),
        ("a.sums", ".bin"),
        ("a.longer", ".bin"),
        ("a.\u00e4", ".bin"),
        ("a.b/c", ".bin"),
        ("a.x y", ".bin"),
        ("a.\udcff", ".bin"),
    ],
)
def test_suffixes_of_raw_entries(path: str, suffix: str) -> None:
    assert entries.raw_entry(FileFacts(1, path, 0, bytes(32), 0), "", b"").suffix == suffix


def test_a_kept_entry_holds_the_sums() -> None:
    entry = entries.kept_entry(FileFacts(3, "a.iso", 1, b"", 10**15), "too large", b"sums")
    found = record.unpack(entry.record)
    assert (entry.suffix, entry.payload) == (entries.SUMS, b"sums")
    assert (found.header["size"], found.header["reason"]) == (10**15, "too large")


_FILES = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_FILES
@given(pngs() | animations().map(build_animation))
def test_every_png_that_can_be_recreated_is(tmp_path: Path, data: bytes) -> None:
    try:
        comes_back(tmp_path, data, times=2)
    except NotExact as error:
        # With its corrections the entry of a tiny picture, or of one that is all noise, may be
        # larger than the file. This is the only reason to keep a picture raw.
        if "unknown deflate encoder" not in str(error):
            raise
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "_most_bytes", lambda order: 1 << 30)
            assert comes_back(tmp_path, data) >= len(data)


def comes_back(folder: Path, data: bytes, times: int = 1) -> int:
    """Encode a file some times, and check its bytes. Returns the length of the first entry."""
    line = Line(folder)
    try:
        lengths = [len(build_entry(line.add(data).entry)) for _ in range(times)]
        line.forget()
        assert [line.render(number) for number in line.files] == [data] * times
    finally:
        line.pack.close()
        line.pack.path.unlink()
    return lengths[0]


def test_an_interlaced_picture_is_a_delta_of_a_plain_one(line: Line) -> None:
    """The frame of an interlaced picture is the whole picture."""
    before, after = screens(2)
    height, width, _ = after.shape
    rows = tuple(row.tobytes() for row in after)
    line.add(png(before))
    line.add(build(with_types(PngPlan(width, height, rows, b"", 2, 8, interlace=1), b"\1")))
    line.add(png(after))
    assert [line.encoded[number].kind for number in (1, 2, 3)] == ["key", "delta", "delta"]
    assert not line.encoded[3].layout.own().any()
    for number, data in line.files.items():
        line.forget()
        assert line.render(number) == data


def test_an_animation_costs_far_less_than_its_pictures(line: Line) -> None:
    still, *others = screens(8, height=160, width=320)
    plans = [
        with_types(
            PngPlan(320, 160, tuple(row.tobytes() for row in frame), b"", 2, 8, level=6), b"\0"
        )
        for frame in (still, *others)
    ]
    canvas, *further = plans
    data = build_animation(Animation(canvas, tuple(Part(one) for one in further)))
    alone = line.add(png(still))
    whole = line.add(data)
    assert len(whole.entry.payload) < 1.5 * len(alone.entry.payload) < len(data) / 4
    line.forget()
    assert line.render(2) == data


@_FILES
@given(near_pngs())
def test_a_look_at_anything_ends_well(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    look = jobs.look(str(path), ())
    assert (look.picture is None) == (look.features is None) == bool(look.reason)
    assert look.size == len(data)


_GOOD = {
    "kind": "key",
    "mtime": 0,
    "frame": [16, 16, 3, 8],
    "png": {"c": 2, "d": 8, "o": 0, "z": 30876, "p": [6, 0, 8, 15], "i": 0},
    "sources": [],
}


@pytest.mark.parametrize(
    "change",
    [
        {"frame": None},
        {"frame": [16, 16, 3]},
        {"frame": [0, 16, 3, 8]},
        {"frame": [-16, 16, 3, 8]},
        {"frame": [16, 16, 10**9, 8]},
        {"frame": [10**9, 10**9, 3, 8]},
        {"frame": ["x", 16, 3, 8]},
        {"sources": 5},
        {"sources": ["x"]},
        {"sources": [{"fill": 1}]},
        {"sources": [{"fill": [300, 0, 0]}]},
        {"sources": [{"fill": ["a", "b", "c"]}]},
        {"sources": [{"fill": [None, 0, 0]}]},
        {"sources": [[]]},
        {"sources": [["x", 0, 0]]},
        {"sources": [[1, 2, 3, 4]]},
        {"sources": [1.5]},
        {"sources": [7]},
        {"png": None},
        {"png": {}},
        {"png": 5},
    ],
    ids=str,
)
def test_records_of_nonsense_are_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    made = Record({**_GOOD, **change}, {"sha256": bytes(32), "tiles": b"\1", "filters": bytes(16)})
    pack = Pack(tmp_path / "00000001.zip", 1, Disk(), 0)
    entry = Entry("00000001.nil", record.pack(made), b"")
    place = Location(1, str(pack.path), *pack.append(entry))
    pack.close()
    forget_caches()
    with pytest.raises(FsmountError):
        jobs.render(place, [], bytes(32))
