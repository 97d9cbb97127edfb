"""When a time lapse shows which picture."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.index import Inode, Object
from fsmount.timelapse.plan import Plan, plan

START = 1_700_000_000


def inode(number: int, seconds: float, object_id: int | None = None, size: int = 9000) -> Inode:
    when = int((START + seconds) * 1e9)
    mode = stat.S_IFREG | 0o644
    return Inode(number, mode, 0, 0, 1, size, 0, when, when, when, object_id, None, None)


def planned(
    seconds: list[float],
    *,
    speed: float = 60,
    fps: float = 30,
    skip_idle: bool = False,
    objects: dict[int, Object] | None = None,
) -> Plan:
    """A plan of pictures taken at these times; picture n shows object n if there is one."""
    known = objects or {}
    store: Any = SimpleNamespace(index=SimpleNamespace(known_object=known.get))
    entries = [
        (b"%d.png" % n, inode(n, second, n if n in known else None))
        for n, second in enumerate(seconds, start=1)
    ]
    return plan(store, entries, speed=speed, most_per_second=fps, skip_idle=skip_idle)


def test_one_a_minute() -> None:
    found = planned([0, 60, 120])
    assert [tuple(shot)[::2] for shot in found] == [(1, 0), (2, 1000), (3, 2000)]
    assert [shot.duration_ms for shot in found] == [1000, 1000, 1000]
    assert (found.length_ms, found.found, found.idle) == (3000, 3, 0)


def test_the_order_is_that_of_the_times() -> None:
    assert [shot.ino for shot in planned([120, 0, 60])] == [2, 3, 1]


def test_a_pause_is_cut_short() -> None:
    found = planned([0, 60, 60 + 8 * 3600, 60 + 8 * 3600 + 60])
    # Five minutes at 60x.
    assert [shot.start_ms for shot in found] == [0, 1000, 6000, 7000]


def test_more_pictures_than_frames() -> None:
    found = planned([float(n) for n in range(100)], speed=100, fps=10)
    assert [shot.ino for shot in found] == [1 + 10 * n for n in range(10)]
    assert found.found == 100


def test_no_pictures() -> None:
    assert planned([]).count == 0
    assert planned([]).length_ms == 0
    assert planned([5]).length_ms == 1000


def _object(number: int, length: int, uses: int = 1) -> Object:
    return Object(number, "delta", 1, 0, length, 9000, bytes(32), 1, uses=uses)


def test_idle_pictures_and_their_time_are_left_out() -> None:
    sizes = [9000, 100, 100, 8000, 8000, 100]
    objects = {n: _object(n, size) for n, size in enumerate(sizes, start=1)}
    found = planned([60.0 * n for n in range(6)], skip_idle=True, objects=objects)
    assert [(shot.ino, shot.start_ms) for shot in found] == [(1, 0), (4, 1000), (5, 2000)]
    assert found.idle == 3
    assert planned([60.0 * n for n in range(6)], objects=objects).count == 6


def test_equal_pictures_are_idle() -> None:
    shared = _object(1, 9000, uses=2)
    found = planned(
        [0, 60, 120], skip_idle=True, objects={1: shared, 2: shared, 3: _object(3, 9000)}
    )
    assert [shot.ino for shot in found] == [1, 3]


def test_the_first_picture_is_shown_though_it_is_idle() -> None:
    objects = {n: _object(n, 50) for n in (1, 2)}
    assert [shot.ino for shot in planned([0, 60], skip_idle=True, objects=objects)] == [1]


def test_other_files_are_no_pictures() -> None:
    store: Any = SimpleNamespace(index=SimpleNamespace(known_object={7: _object(7, 1)}.get))
    entries = [
        (b"notes", inode(1, 0)),
        (b"folder.png", inode(2, 0)._replace(mode=stat.S_IFDIR | 0o755)),
        (b"a/.sh_thumbnails/normal/x.png", inode(3, 0)),
        (b".Trash-1000/files/x.png", inode(4, 0)),
        (b"shot", inode(5, 0, 7)),
        (b"A.PNG", inode(6, 1)),
    ]
    found = plan(store, entries, speed=1, most_per_second=30)
    assert [shot.ino for shot in found] == [5, 6]


@given(
    st.lists(st.floats(0, 1e6), max_size=60),
    st.floats(0.5, 1e5),
    st.sampled_from([1, 10, 30, 60]),
)
def test_rules_that_always_hold(seconds: list[float], speed: float, fps: int) -> None:
    found = planned(seconds, speed=speed, fps=fps)
    assert found.found == len(seconds)
    shots = list(found)
    assert bool(shots) == bool(seconds)
    end = 0
    for shot in shots:
        assert shot.start_ms == end
        assert shot.duration_ms >= int(1000 / fps)
        end = shot.start_ms + shot.duration_ms
    assert found.length_ms == end
    # Nothing lasts longer than the time itself, or than all pauses cut short.
    whole = (max(seconds) - min(seconds)) / speed if seconds else 0
    most = min(whole, 300 / speed * max(len(seconds) - 1, 0)) * 1000 + 1001
    assert end <= max(most, 0) or not shots


def test_a_name_tells_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    store: Any = SimpleNamespace(index=SimpleNamespace(known_object=lambda _: None))
    entries = [
        (b"2024-01-01T10:01:00+00:00.png", inode(1, 0)),
        (b"2024-01-01T10:00:00+00:00.png", inode(2, 5)),
    ]
    found = list(plan(store, entries, speed=60, most_per_second=30))
    assert [shot.ino for shot in found] == [2, 1]
    assert found[0].wall_us == 1_704_103_200 * 10**6
