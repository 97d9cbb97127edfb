"""Packs: entries written and read, central directories, tails, damage, a failing disk."""

from __future__ import annotations

import errno
import random
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.delta.payload import Photographs
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.packs import pack as packs
from fsmount.store.packs.pack import Entry, Pack, build_entry, parse_entry, read_entry, scan
from tests.support.frames import FlakyDisk
from tests.support.packs import unzipped

ENTRIES = st.builds(
    lambda number, suffix, *parts: Entry(f"{number:08x}{suffix}", *parts),
    st.integers(1, 2**32 - 1),
    st.sampled_from([".webp", ".jxl", ".pam.zst", ".nil", ".bin", ".photo", ".rec2"]),
    st.binary(max_size=300) | st.binary(min_size=1, max_size=3).map(lambda b: b * 30_000),
    st.binary(max_size=500),
    st.none()
    | st.builds(
        Photographs, st.sampled_from([".webp", ".jxl"]), st.binary(max_size=99), st.binary()
    ),
    st.just(0) | st.integers(1, 2**32 - 1),
)


def entry(number: int, *, record: int = 40, payload: int = 100) -> Entry:
    source = random.Random(number)
    return Entry(f"{number:08x}.webp", source.randbytes(record), source.randbytes(payload))


def new(path: Path, disk: Disk | None = None) -> Pack:
    return Pack(path / "00000001.zip", 1, disk or Disk(), 0)


@settings(deadline=None)
@given(ENTRIES)
def test_an_entry_is_parsed_as_it_was_built(made: Entry) -> None:
    data = build_entry(made)
    assert parse_entry(data) == (made, len(data))
    assert parse_entry(b"xyz" + data + b"more", 3) == (made, len(data) + 3)
    assert made.name == f"{made.object_id:08x}{made.suffix}"


@settings(deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=4, unique_by=lambda made: made.object_id))
def test_entries_of_several_members_are_scanned(made: list[Entry]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "00000001.zip")
        pack = Pack(path, 1, Disk(), 0)
        places = [pack.append(one) for one in made]
        pack.write_directory()
        pack.close()
        assert list(scan(path)) == [(*p, one) for p, one in zip(places, made, strict=True)]
        assert [read_entry(path, *place) for place in places] == made
        again = Pack(path, 1, Disk(), places[-1][0] + places[-1][1])
        again.write_directory()
        again.close()
        assert len(unzipped(path)) == sum(map(members, made))


def members(made: Entry) -> int:
    """The number of members of an entry."""
    return 1 + (made.photographs is not None) + (len(made.record) > 60_000)


def test_an_extra_field_that_is_cut_off_is_damage() -> None:
    built = build_entry(Entry("00000001.webp", b"", b""))
    longer = built[:28] + bytes([built[28] + 2]) + built[29:]
    with pytest.raises(Damaged):
        parse_entry(longer)


@settings(deadline=None)
@given(ENTRIES, st.data())
def test_a_changed_byte_of_a_header_is_damage_or_another_entry(
    made: Entry, data: st.DataObject
) -> None:
    """No change of a byte leads to anything but an entry or the error."""
    built = build_entry(made)
    at = data.draw(st.integers(0, len(built) - 1))
    changed = built[:at] + bytes([built[at] ^ data.draw(st.integers(1, 255))]) + built[at + 1 :]
    with suppress(Damaged):
        found, end = parse_entry(changed)
        assert end <= len(changed)
        assert found != made


def test_appended_entries_are_read_and_scanned(tmp_path: Path) -> None:
    pack = new(tmp_path)
    made = [entry(1), entry(2, record=70_000), entry(3, payload=0), entry(4, record=60_000)]
    places = [pack.append(one) for one in made]
    assert places[0][0] == 0
    assert pack.length == sum(length for _, length in places)
    for one, place in zip(made, places, strict=True):
        assert read_entry(pack.path, *place) == one
    assert list(scan(pack.path)) == [(*p, one) for p, one in zip(places, made, strict=True)]
    pack.write_directory()
    assert list(scan(pack.path)) == [(*p, one) for p, one in zip(places, made, strict=True)]
    pack.close()


def test_unzip_opens_a_pack_after_each_directory(tmp_path: Path) -> None:
    pack = new(tmp_path)
    wanted: dict[str, bytes] = {}
    for number in range(1, 7):
        one = entry(number, record=65_000 if number == 3 else 50, payload=10 * number)
        pack.append(one)
        wanted[one.name] = one.payload
        if number == 3:
            wanted["00000003.rec"] = one.record
        if number % 2:
            pack.write_directory()
            pack.write_directory()
            assert unzipped(pack.path) == wanted
    pack.write_directory()
    pack.fsync()
    pack.close()
    assert unzipped(pack.path) == wanted


def test_an_append_cuts_the_directory_off(tmp_path: Path) -> None:
    pack = new(tmp_path)
    pack.append(entry(1, payload=5))
    before = pack.length
    pack.write_directory()
    assert pack.path.stat().st_size > before
    offset, length = pack.append(entry(2, payload=0, record=0))
    assert offset == before
    assert pack.path.stat().st_size == before + length == pack.length
    pack.close()


def test_a_pack_without_entries_gets_no_directory(tmp_path: Path) -> None:
    pack = new(tmp_path)
    pack.write_directory()
    pack.close()
    assert pack.path.stat().st_size == 0


def test_what_lies_beyond_the_committed_length_is_dropped(tmp_path: Path) -> None:
    pack = new(tmp_path)
    first = pack.append(entry(1))
    pack.append(entry(2))
    pack.write_directory()
    pack.close()
    again = Pack(pack.path, 1, Disk(), first[1])
    assert pack.path.stat().st_size == first[1]
    third = again.append(entry(3))
    again.write_directory()
    again.close()
    assert set(unzipped(pack.path)) == {"00000001.webp", "00000003.webp"}
    assert [(offset, length) for offset, length, _ in scan(pack.path)] == [first, third]


def test_a_reopened_pack_lists_all_its_members(tmp_path: Path) -> None:
    pack = new(tmp_path)
    for number in range(1, 5):
        pack.append(entry(number, record=70_000 if number == 2 else 1))
    pack.write_directory()
    before = unzipped(pack.path)
    pack.close()
    again = Pack(pack.path, 1, Disk(), pack.length)
    again.write_directory()
    again.close()
    assert unzipped(pack.path) == before
    assert len(before) == 5


def test_committed_bytes_that_are_missing_are_damage(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        Pack(tmp_path / "a.zip", 1, Disk(), 10)
    assert not (tmp_path / "a.zip").exists()
    pack = new(tmp_path)
    pack.append(entry(1))
    pack.close()
    with pytest.raises(Damaged):
        Pack(pack.path, 1, Disk(), pack.length + 1)
    data = bytearray(pack.path.read_bytes())
    data[-1] ^= 1
    pack.path.write_bytes(data)
    with pytest.raises(Damaged):
        Pack(pack.path, 1, Disk(), pack.length)
    assert pack.path.read_bytes() == data


def test_rewind_drops_the_last_entries(tmp_path: Path) -> None:
    pack = new(tmp_path)
    pack.append(entry(1))
    length = pack.length
    pack.append(entry(2, record=65_000))
    pack.write_directory()
    pack.rewind(length)
    assert pack.length == length == pack.path.stat().st_size
    pack.append(entry(3))
    pack.write_directory()
    pack.close()
    assert set(unzipped(pack.path)) == {"00000001.webp", "00000003.webp"}


@pytest.mark.parametrize("with_directory", [False, True])
def test_an_append_that_fails_leaves_the_pack_as_before(
    tmp_path: Path, with_directory: bool
) -> None:
    disk = FlakyDisk()
    pack = new(tmp_path, disk)
    pack.append(entry(1))
    size = pack.path.stat().st_size
    if with_directory:
        pack.write_directory()
    disk.fail_once("pwrite", errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        pack.append(entry(2, payload=5000))
    assert caught.value.errno == errno.ENOSPC
    assert pack.length == size == pack.path.stat().st_size
    pack.append(entry(3))
    pack.write_directory()
    pack.close()
    assert set(unzipped(pack.path)) == {"00000001.webp", "00000003.webp"}


def test_a_directory_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = FlakyDisk()
    pack = new(tmp_path, disk)
    for number in range(1, 30):
        pack.append(entry(number, record=0, payload=0))
    disk.fail_once("pwrite", errno.ENOSPC)
    with pytest.raises(OSError):
        pack.write_directory()
    assert pack.path.stat().st_size == pack.length
    pack.append(entry(30))
    pack.write_directory()
    pack.close()
    assert len(unzipped(pack.path)) == 30


def test_a_pack_is_full_by_bytes_or_by_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = new(tmp_path)
    pack.append(entry(1))
    assert not pack.full
    monkeypatch.setattr(packs, "SEAL_BYTES", pack.length + 1)
    assert not pack.full
    monkeypatch.setattr(packs, "SEAL_BYTES", pack.length)
    assert pack.full
    monkeypatch.undo()
    assert not pack.full
    monkeypatch.setattr(packs, "MAX_MEMBERS", 3)
    pack.append(entry(2, record=65_000))
    assert pack.full
    pack.close()


# -- damage


def place(tmp_path: Path, made: Entry) -> tuple[Path, int, int]:
    pack = new(tmp_path)
    pack.append(entry(1))
    offset, length = pack.append(made)
    pack.append(entry(3))
    pack.close()
    return pack.path, offset, length


def test_a_wrong_place_is_damage(tmp_path: Path) -> None:
    path, offset, length = place(tmp_path, entry(2))
    for wrong in (
        (offset + 1, length),
        (offset, length - 1),
        (offset, length + 1),
        (offset, 2 * length),
        (10**9, length),
        (offset, 0),
    ):
        with pytest.raises(Damaged):
            read_entry(path, *wrong)
    with pytest.raises(Damaged):
        read_entry(path.with_name("none"), offset, length)


@pytest.mark.parametrize("record", [30, 60_001])
def test_flipped_bits_are_damage(tmp_path: Path, record: int) -> None:
    """A name and a short record have no checksum in the entry. Their readers have one."""
    made = entry(2, record=record, payload=50)
    path, offset, length = place(tmp_path, made)
    whole = path.read_bytes()
    source = random.Random(1)
    bits = range(0, 8 * length, 3) if length < 1000 else source.sample(range(8 * length), 500)
    noticed = 0
    for bit in bits:
        data = bytearray(whole)
        data[offset + bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            found = read_entry(path, offset, length)
        except Damaged:
            noticed += 1
            continue
        assert found.payload == made.payload
        if record > 60_000:
            assert found.record == made.record
        assert found != made or record > 60_000
    assert noticed > len(bits) // 2


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120), st.data())
def test_nonsense_is_damage_and_nothing_else(data: bytes, choice: st.DataObject) -> None:
    built = build_entry(entry(5, record=5, payload=5))
    at = choice.draw(st.integers(0, len(built)))
    for nonsense in (data, built[:at] + data):
        if nonsense.startswith(built):
            continue
        with pytest.raises(Damaged):
            parse_entry(nonsense)


def test_a_scan_goes_on_behind_damage(tmp_path: Path) -> None:
    path, offset, length = place(tmp_path, entry(2))
    data = bytearray(path.read_bytes())
    data[offset + length - 1] ^= 1
    path.write_bytes(data)
    assert [one.object_id for _, _, one in scan(path)] == [1, 3]
    path.write_bytes(data[: offset + 5])
    assert [one.object_id for _, _, one in scan(path)] == [1]


def test_headers_are_found_across_the_windows_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = Pack(tmp_path / "00000001.zip", 1, Disk(), 0)
    made = [Entry(f"{n:08x}.bin", b"r" * n, b"PK\x03\x04" * 3 + bytes(n)) for n in range(1, 30)]
    places = [pack.append(one) for one in made]
    pack.close()
    damaged = bytearray(pack.path.read_bytes())
    damaged[places[4][0]] ^= 1
    pack.path.write_bytes(damaged)
    wanted = [(*p, one) for p, one in zip(places, made, strict=True) if one is not made[4]]
    for size in (7, 64, 100, 1 << 20):
        monkeypatch.setattr(packs, "_WINDOW_BYTES", size)
        assert list(scan(pack.path)) == wanted


def test_a_scan_holds_one_entry_at_a_time(tmp_path: Path) -> None:
    peaks = []
    for count in (4, 40):
        pack = Pack(tmp_path / f"{count}.zip", 1, Disk(), 0)
        for number in range(count):
            pack.append(Entry(f"{number:08x}.bin", b"r", bytes(1 << 20)))
        pack.close()
        tracemalloc.start()
        assert sum(1 for _ in scan(pack.path)) == count
        again = Pack(pack.path, 1, Disk(), pack.length)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        again.close()
    assert peaks[1] < 1.5 * peaks[0]
