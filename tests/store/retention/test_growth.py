"""Figures by period and folder: each file and each byte counts once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from fsmount.store.retention import growth as growth_module
from fsmount.store.retention.growth import Growth, Unit, growth
from fsmount.store.store import open_read_store, open_store
from tests.support.encoding import put
from tests.support.frames import png, screens
from tests.support.trees import import_into, make_store

NAMES = ["2024-01-31T10:00:00", "2024-01-31T10:01:00", "2024-02-01T00:00:30", "2025-03-01T09:00:00"]


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TZ", "UTC")
    root = make_store(tmp_path / "store", monkeypatch)
    source = tmp_path / "in"
    (source / "desk" / "a").mkdir(parents=True)
    (source / "desk" / "b").mkdir()
    for number, (name, frame) in enumerate(zip(NAMES, screens(4), strict=True)):
        (source / "desk" / "ab"[number % 2] / f"{name}.png").write_bytes(png(frame))
    # An equal file that comes later, a second name of a file, and a file that is no picture.
    (source / "z.png").write_bytes((source / "desk" / "a" / f"{NAMES[0]}.png").read_bytes())
    (source / "notes").write_bytes(b"n" * 5000)
    (source / "notes again").hardlink_to(source / "notes")
    for name in ("z.png", "notes"):
        os.utime(source / name, (1_700_000_000, 1_700_000_000))
    trio.run(import_into, root, f"{source}/")
    return root


def grown(root: Path, unit: Unit, *, top: int = 0, with_new: bool = False) -> Growth:
    with open_read_store(root) as store:
        return growth(store, unit, top=top, with_new=with_new)


def test_periods(root: Path) -> None:
    days = grown(root, Unit.DAY).rows
    assert [(row.label, row.files, row.pictures) for row in days] == [
        ("2023-11-14", 2, 1),
        ("2024-01-31", 2, 2),
        ("2024-02-01", 1, 1),
        ("2025-03-01", 1, 1),
    ]
    months = grown(root, Unit.MONTH).rows
    assert [row.label for row in months] == ["2023-11", "2024-01", "2024-02", "2025-03"]
    years = grown(root, Unit.YEAR).rows
    assert [(row.label, row.pictures) for row in years] == [("2023", 1), ("2024", 3), ("2025", 1)]
    folders = grown(root, Unit.FOLDER).rows
    assert [(row.label, row.files) for row in folders] == [("", 2), ("desk/a", 2), ("desk/b", 2)]


@pytest.mark.parametrize("unit", list(Unit))
def test_every_byte_counts_once(root: Path, unit: Unit) -> None:
    with open_store(root) as opened:
        put(opened, b"staged.png", b"s" * 700)
    with open_read_store(root) as store:
        shown = [found for found in store.index.all_objects() if found.uses]
        rows = grown(root, unit).rows
        assert sum(row.stored for row in rows) == sum(found.length for found in shown) + 700
        totals = store.index.totals()
    assert sum(row.bytes for row in rows) == totals["logical_bytes"]
    assert sum(row.files for row in rows) == totals["files"]


def test_what_is_new(root: Path) -> None:
    rows = grown(root, Unit.MONTH, with_new=True).rows
    new = {row.label: row.new or 0.0 for row in rows}
    # The first picture is a whole screen. The equal one is not new.
    assert new["2024-01"] > 1
    assert new["2023-11"] == 0
    assert 0 < new["2025-03"] < 1
    assert all(row.new is None for row in grown(root, Unit.MONTH).rows)


def test_what_costs_most(root: Path) -> None:
    found = grown(root, Unit.MONTH, top=2)
    assert found.files[0].path == f"desk/a/{NAMES[0]}.png"
    assert found.files[0].stored > found.files[1].stored
    assert [each.path for each in found.folders] == ["desk/a", "desk/b"]
    everything = grown(root, Unit.MONTH, top=50)
    costs = [each.stored for each in everything.files]
    assert costs == sorted(costs, reverse=True)
    assert len(everything.folders) == 3


def test_a_forecast(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = grown(root, Unit.MONTH).forecast
    assert found is not None
    rows = grown(root, Unit.DAY).rows
    # The last 30 days before the newest picture have one picture.
    assert (found.days, found.pictures_per_day) == (30, 1 / 30)
    assert found.stored_per_day == rows[-1].stored / 30
    assert found.full_in_days == pytest.approx(found.free / found.stored_per_day)
    monkeypatch.setattr(growth_module, "FORECAST_DAYS", 10_000)
    found = grown(root, Unit.MONTH).forecast
    assert found is not None
    assert found.days == 474
    assert found.stored_per_day * 474 == pytest.approx(
        sum(row.stored for row in rows) - _entry_of_notes(root)
    )


def _entry_of_notes(root: Path) -> int:
    with open_read_store(root) as store:
        return next(o.length for o in store.index.all_objects() if o.kind == "raw")


def test_an_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grown(make_store(tmp_path / "s", monkeypatch), Unit.MONTH, top=3) == Growth()
