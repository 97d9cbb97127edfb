"""Names of pictures: their times, and which picture certainly hangs on which."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.legacy.order import TimedFile, sort_by_time
from fsmount.legacy.runs import FolderRuns, pairs, scan
from fsmount.legacy.timestamps import Timestamp, parse_other_timestamp, parse_timestamp
from tests.support.legacies import BERLIN

NOON = 1_717_695_600 * 10**6
# Berlin, New York, Lord Howe, Kathmandu. They are written out: a machine may have no zones
# installed.
ZONES = (
    "UTC",
    BERLIN,
    "EST5EDT,M3.2.0,M11.1.0",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "<+0545>-5:45",
)
# Hours around changes of summer time in these zones, and a day without a change.
DAYS = (
    datetime(2024, 3, 31, 1),
    datetime(2024, 10, 27, 1),
    datetime(2024, 3, 10, 1),
    datetime(2024, 11, 3, 0),
    datetime(2024, 4, 7, 1),
    datetime(2024, 10, 6, 1),
    datetime(2024, 7, 1, 12),
)


@pytest.fixture(name="zone", params=ZONES)
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put this process into a time zone during a test."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


# -- times in names


@pytest.mark.parametrize(
    "stem",
    [
        "2024-06-06T17:40:00+00:00",
        "2024-06-06T17:40:00Z",
        "2024-06-06T19:40:00+02:00",
        "2024-06-06T12:10:00-0530",
        "2024-06-06T17:40:00.0+00",
        "2024-06-06T17:40:00,000000000+00:00",
        "20240606T174000Z",
        "2024-06-06T17:40Z",
        # The capture script with FSMOUNT_NO_COLONS=1.
        "2024-06-06T17-40-00+0000",
        "2024-06-06T23-25-00+0545",
        "2024-06-06T13-40-00-0400",
        # What Thunar 4.18 makes of a name with colons when it copies into a FUSE mount.
        "2024-06-06T17_40_00+00_00",
        "2024-06-06 17-40-00+00:00",
    ],
)
def test_names_of_one_instant(stem: str, zone: str) -> None:
    assert zone
    assert parse_timestamp(stem) == Timestamp(NOON, zoned=True)


@pytest.mark.parametrize("stem", ["2024-06-06T17:40:00", "20240606_1740", "2024-06-06 17-40-00"])
def test_digits_without_a_zone_are_the_same_in_every_zone(stem: str, zone: str) -> None:
    assert zone
    assert parse_timestamp(stem) == Timestamp(NOON, zoned=False)


def test_fractions_count_to_the_microsecond() -> None:
    assert parse_timestamp("2024-06-06T17:40:00.25Z") == Timestamp(NOON + 250_000, zoned=True)
    assert parse_timestamp("2024-06-06T17:40:00,123456789") == Timestamp(
        NOON + 123_456, zoned=False
    )
    assert parse_timestamp("2024-06-06T17:40:00.1234560") == parse_timestamp(
        "2024-06-06T17:40:00.123456"
    )


@pytest.mark.parametrize(
    "stem",
    ["", "shot", "2024-06-06", "2024-13-06T17:40:00", "12024-06-06T1", "2024-06-06T17:40:61"],
)
def test_names_without_a_time(stem: str) -> None:
    assert parse_timestamp(stem) is None


def test_dates_alone_are_what_only_the_script_takes_for_a_time() -> None:
    assert parse_other_timestamp("2024-06-06") == parse_timestamp("2024-06-06T00:00:00")
    assert parse_other_timestamp("2024-W23-4T10:00:00") == parse_timestamp("2024-06-06T10:00:00")
    assert parse_other_timestamp("2024-06-06T10:00:00") is None
    assert parse_other_timestamp("shot") is None


offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))
DATES = (datetime(1971, 1, 1), datetime(2100, 1, 1))
moments = st.datetimes(*DATES) | st.datetimes(*DATES, timezones=offsets)


@given(moments, st.sampled_from(["T", " ", "_"]))
def test_a_name_tells_what_the_script_reads_in_it(moment: datetime, separator: str) -> None:
    told = parse_timestamp(moment.isoformat(separator))
    assert told is not None
    assert told.zoned == (moment.tzinfo is not None)
    there = moment if told.zoned else moment.replace(tzinfo=UTC)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=told.us) == there


# -- the order


def named(*names: str) -> list[TimedFile]:
    found = []
    for name in names:
        told = parse_timestamp(name.rpartition(".")[0])
        assert told is not None
        found.append(TimedFile(name.encode(), told))
    return found


def names_in_order(stems: list[str]) -> list[str]:
    return [
        one.file.name.decode()[:-4] for one in sort_by_time(named(*(f"{s}.png" for s in stems)))
    ]


@pytest.mark.parametrize("day", DAYS)
def test_names_without_a_zone_go_by_their_digits(day: datetime, zone: str) -> None:
    """The scripts sort them in the same way, in every zone where pictures are taken and read."""
    stems = [(day + timedelta(minutes=7 * at)).isoformat() for at in range(30)]
    assert zone
    assert names_in_order(stems[::-1]) == sorted(stems, key=datetime.fromisoformat) == stems


@pytest.mark.parametrize("day", DAYS)
def test_names_with_a_zone_go_by_their_instants(day: datetime, zone: str) -> None:
    """This holds over the hour that comes twice, too, and on a journey."""
    start = day.replace(tzinfo=UTC)
    told = []
    for at in range(30):
        local = timezone(timedelta(hours=(1, 2)[at < 15] if at < 22 else -8))
        told.append((start + timedelta(minutes=7 * at)).astimezone(local).isoformat())
    assert zone
    assert names_in_order(told[::-1]) == sorted(told, key=datetime.fromisoformat) == told
    assert told != sorted(told)


def hanging(files: list[TimedFile]) -> dict[bytes, bytes | None]:
    """Certain relations: file -> the file that it hangs on; None for the first file."""
    placed = sort_by_time(files)
    found = {late.file.name: early.file.name for early, late in pairwise(placed)}
    doubted = {one.file.name for one in placed if one.doubt}
    return {
        one.file.name: found.get(one.file.name)
        for one in placed
        if one.file.name not in doubted and found.get(one.file.name) not in doubted
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 6 * 24 * 4), st.booleans()), min_size=2, max_size=12, unique=True
    ),
    st.integers(-23 * 4, 23 * 4),
)
def test_what_is_certain_in_a_mixed_folder_is_so_in_every_zone(
    times: list[tuple[int, bool]], offset: int
) -> None:
    """Times are quarters of hours. Some have a zone, the others belong to any one zone."""
    files = [
        TimedFile(b"%d%d.png" % (quarter, zoned), Timestamp(quarter * 900 * 10**6, zoned))
        for quarter, zoned in times
    ]

    def instant(file: TimedFile) -> int:
        return file.time.us - (0 if file.time.zoned else offset * 900 * 10**6)

    there = sorted(files, key=instant)
    before = {late.name: early.name for early, late in pairwise(there)}
    for name, found in hanging(files).items():
        assert found == before.get(name)


@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), unique=True))
def test_what_is_left_in_doubt_could_be_otherwise(times: list[tuple[int, bool]]) -> None:
    """Each file in doubt has one of the other kind less than a day away."""
    files = [
        TimedFile(b"%d%d" % (hour, zoned), Timestamp(hour * 3600 * 10**6, zoned))
        for hour, zoned in times
    ]
    for one in sort_by_time(files):
        away = [
            abs(one.file.time.us - other.time.us)
            for other in files
            if other.time.zoned != one.file.time.zoned
        ]
        assert bool(one.doubt) == (min(away, default=10**15) < 24 * 3600 * 10**6)


def test_a_doubt_names_the_files() -> None:
    placed = sort_by_time(named("2024-06-06T10:00:00.png", "2024-06-06T12:00:00Z.png"))
    for one in placed:
        assert "2024-06-06T10:00:00.png and 2024-06-06T12:00:00Z.png" in one.doubt
        assert "time zone" in one.doubt
    placed = sort_by_time(named("2024-06-06T10:00:00Z.png", "20240606T120000+0200.png"))
    assert all("the same time" in one.doubt for one in placed)
    placed = sort_by_time(named("2024-06-06T10:00:00.png", "2024-06-07T10:00:00Z.png"))
    assert not any(one.doubt for one in placed)


# -- folders


def folder_of(place: Path, *names: str) -> Path:
    place.mkdir(exist_ok=True)
    for name in names:
        (place / name).write_bytes(b"")
    return place


def runs_of(found: FolderRuns) -> list[list[str]]:
    return [[step.name.decode() for step in run] for run in found.runs]


def unsure(found: FolderRuns) -> list[str]:
    return [step.name.decode() for step in found.differences() if step.doubt]


def test_a_folder_is_the_same_in_every_zone(tmp_path: Path, zone: str) -> None:
    assert zone
    spring = [f"2024-03-31T0{m // 60}:{m % 60:02}:00" for m in range(90, 210, 10)]
    folder = folder_of(tmp_path, f"{spring[0]}.png", *(f"{stem}.jxl" for stem in spring[1:]))
    found = scan(folder)
    assert runs_of(found) == [[f"{spring[0]}.png", *(f"{stem}.jxl" for stem in spring[1:])]]
    assert unsure(found) == []
    usual = [step.after_gap for step in found.runs[0]]
    assert usual == [False] * 12


STEMS = [f"2024-06-06T10:0{minute}:00" for minute in range(6)]


@pytest.mark.parametrize(
    "names",
    [
        (f"{STEMS[3]}.PNG",),
        (f"{STEMS[3]}.JXL",),
        (f"{STEMS[3]}.Png",),
        (f"{STEMS[3]}.jXl",),
        (f"{STEMS[2]}.0.png",),
        ("20240606T100200.png",),
        ("20240606T100200.jxl",),
        (f"{STEMS[2]}.PNG",),
        (f"{STEMS[3]}.PNG", f"{STEMS[3]}.png"),
        ("2024-W23-4T10:02:30.png",),
        ("2024-W23-4T10:02:30.jxl",),
        ("2024-06-06T10:03:00+00:00.png",),
    ],
)
def test_a_picture_that_may_stand_between_two_others_leaves_doubt(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    links = [f"{stem}.jxl" for stem in STEMS[1:3] + STEMS[4:]]
    found = scan(folder_of(tmp_path, f"{STEMS[0]}.png", *links, *names))
    assert f"{STEMS[4]}.jxl" in unsure(found) or f"{STEMS[2]}.jxl" in unsure(found)
    # A run keeps all files that may belong together.
    (run,) = [run for run in runs_of(found) if f"{STEMS[4]}.jxl" in run]
    assert {f"{STEMS[0]}.png", *names} <= set(run)


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_file_leaves_doubt(kind: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, f"{STEMS[0]}.png", f"{STEMS[1]}.jxl", f"{STEMS[3]}.jxl")
    strange = folder / f"{STEMS[2]}.png"
    if kind == "link":
        strange.symlink_to(f"{STEMS[0]}.png")
    elif kind == "folder":
        strange.mkdir()
    else:
        os.mkfifo(strange)
    found = scan(folder)
    assert unsure(found) == [f"{STEMS[3]}.jxl"]
    assert f"{STEMS[2]}.png may count" in found.differences()[1].doubt


def test_a_jxl_beside_a_link_of_its_stem_is_shown_as_it_is(tmp_path: Path) -> None:
    """The tree cannot show two files under one name."""
    folder = folder_of(tmp_path, f"{STEMS[0]}.png", *(f"{stem}.jxl" for stem in STEMS[1:4]))
    (folder / f"{STEMS[2]}.png").symlink_to(f"{STEMS[0]}.png")
    found = scan(folder)
    assert unsure(found) == [f"{STEMS[3]}.jxl"]
    assert [step.name.decode() for step in found.differences()] == [
        f"{STEMS[1]}.jxl",
        f"{STEMS[3]}.jxl",
    ]


def test_other_names_leave_no_doubt(tmp_path: Path) -> None:
    links = [f"{stem}.jxl" for stem in STEMS[1:]]
    others = ("shot.png", "notes.JXL", f"{STEMS[3]}.jpg", f".{STEMS[3]}.png")
    found = scan(folder_of(tmp_path, f"{STEMS[0]}.png", *links, *others))
    assert runs_of(found) == [[f"{STEMS[0]}.png", *links]]
    assert unsure(found) == []


def test_pngs_in_doubt_are_no_run(tmp_path: Path) -> None:
    names = [f"{stem}{zone}.png" for stem in STEMS for zone in ("", "Z")]
    assert all(len(run) == 1 for run in scan(folder_of(tmp_path, *names)).runs)


def test_a_jxl_beside_its_png_is_no_difference(tmp_path: Path) -> None:
    """The PNG is the picture. A difference behind it needs a comparison with the `.jxl`."""
    pngs = [f"{stem}.png" for stem in STEMS[:3]]
    links = [f"{stem}.jxl" for stem in STEMS[1:4]]
    found = scan(folder_of(tmp_path, *pngs, *links))
    assert runs_of(found) == [pngs[:1], [pngs[1], pngs[2], links[2]]]
    twins = {step.name: step.twin.name for run in found.runs for step in run if step.twin}
    assert twins == {pngs[2].encode(): links[1].encode()}
    assert found.positions[links[1].encode()] == found.positions[pngs[2].encode()]
    assert links[0].encode() not in found.positions


# -- pairs of the writer


def test_pairs_are_those_that_are_read_back(tmp_path: Path) -> None:
    names = [f"{stem}.png" for stem in STEMS]
    folder_of(tmp_path, *names)
    plain = [(tmp_path / early, tmp_path / late) for early, late in pairwise(names)]
    assert pairs(tmp_path) == plain
    (tmp_path / f"{STEMS[1]}.PNG").write_bytes(b"")
    (tmp_path / "20240606T100300.png").write_bytes(b"")
    (tmp_path / f"{STEMS[5]}.jxl").write_bytes(b"")
    wanted = pairs(tmp_path)
    assert wanted == []
