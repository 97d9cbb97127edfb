"""--since, --until, --changed, --include and --exclude of ls, export, verify and runs."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import Cli
from tests.support.frames import png

NAMES = [
    "2024-02-29T23:59:59.png",
    "2024-03-01T00:00:00.png",
    "2024-03-31T23:59:59.png",
    "2024-04-01T00:00:00.png",
]


@pytest.fixture(name="day")
def a_store_of_a_day(cli: Cli, root: Path, tmp_path: Path) -> Path:
    """A store with pictures of which nothing, one tile of 96, a half and all are new."""
    folder = tmp_path / "day" / "desk"
    folder.mkdir(parents=True)
    chance = np.random.default_rng(4)
    frame = chance.integers(0, 256, (128, 192, 3), np.uint8)
    for number, name in enumerate(NAMES):
        if number == 2:
            frame[:16, :16] = chance.integers(0, 256, (16, 16, 3), np.uint8)
        if number == 3:
            frame[64:] = chance.integers(0, 256, (64, 192, 3), np.uint8)
        (folder / name).write_bytes(png(frame))
    (tmp_path / "day" / "note.txt").write_text("x")
    assert cli("import", f"{tmp_path / 'day'}/", root).code == 0
    return root


def names(cli: Cli, store: Path, *options: str) -> list[str]:
    done = cli("ls", "-R", store, *options)
    assert (done.code, done.err) == (0, "")
    return [os.path.basename(line.split()[-1]) for line in done.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--since", "2024-03", "--until", "2024-03"], NAMES[1:3]),
        (["--until", "2024-02"], NAMES[:1]),
        (["--since", "2024-04", "--until", "2025-12"], NAMES[3:]),
        (["--until", "2024-03-01T00:00"], NAMES[:2]),
        (["--changed", "0%", "--include", "*.png"], [*NAMES, "note.txt"]),
        (["--changed", "0.5", "--exclude", "*.txt"], [NAMES[0], NAMES[3]]),
        (["--changed", "0.6", "--exclude", "*.txt"], NAMES[:1]),
        (["--changed", "1%", "--exclude", "*.txt"], [NAMES[0], NAMES[2], NAMES[3]]),
        (["--changed", "2%", "--exclude", "*.txt"], [NAMES[0], NAMES[3]]),
        (["--include", "*/", "--exclude", "*31*"], ["desk", *NAMES[:2], NAMES[3], "note.txt"]),
    ],
)
def test_what_is_listed(cli: Cli, day: Path, options: list[str], wanted: list[str]) -> None:
    assert names(cli, day, *options) == wanted


def test_files_without_a_time_in_the_name_go_by_their_mtime(cli: Cli, day: Path) -> None:
    assert names(cli, day, "--since", "3 days ago") == ["note.txt"]
    assert names(cli, day, "--since", "3 days ago", "--until", "1 day ago") == []
    assert names(cli, day, "--until", "1 year ago") == NAMES


def test_export_of_a_month(cli: Cli, day: Path, tmp_path: Path) -> None:
    month = ["--since", "2024-03", "--until", "2024-03"]
    assert cli("export", day, tmp_path / "out", *month).code == 0
    found = sorted(path.name for path in (tmp_path / "out").rglob("*.png"))
    assert found == NAMES[1:3]
    assert cli("export", day, tmp_path / "none", "--since", "2030-01").code == 0
    assert list((tmp_path / "none").iterdir()) == []
    assert cli("export", day, tmp_path / "busy", "--changed", "40%").code == 0
    found = sorted(path.name for path in (tmp_path / "busy").rglob("*"))
    assert found == [NAMES[0], NAMES[3], "desk", "note.txt"]


def test_verify_of_a_month(cli: Cli, day: Path, tmp_path: Path) -> None:
    source = tmp_path / "day"
    (source / "desk" / NAMES[0]).write_bytes(b"other")
    (source / "desk" / "2024-03-05T00:00:00.png").write_bytes(b"more")
    march = ["--since", "2024-03-10", "--until", "2024-03"]
    assert cli("verify", *march, f"{source}/", day).out == "1/1 identical\n"
    assert cli("verify", "--since", "2024-03-01", "--until", "2024-03", f"{source}/", day).code == 1
    assert cli("verify", f"{source}/", day, "--until", "2024-02").code == 1
    only_there = cli("verify", "--since", "2024-04", f"{tmp_path / 'none'}/", day)
    assert only_there.code == 1
    (source / "desk" / NAMES[0]).unlink()
    # The first picture is only in the store, and one file only in the folder. The note and the
    # picture that half changed are in both.
    assert cli("verify", "--changed", "40%", f"{source}/", day).out == "2/4 identical\n"


def test_runs_of_a_month(cli: Cli, day: Path) -> None:
    found = cli("runs", day, "--json", "--since", "2024-02", "--until", "2024-03").json()["runs"]
    assert [(each["kind"], each["pictures"]) for each in found] == [("busy", 1), ("idle", 2)]
    assert (found[1]["first"], found[1]["last"]) == (f"desk/{NAMES[1]}", f"desk/{NAMES[2]}")
    assert cli("runs", day, "--until", "2024-01").out == "there are no pictures\n"


@pytest.mark.parametrize("text", ["5", "-1%", "101%", "x", "", "nan"])
def test_shares_that_are_none(cli: Cli, day: Path, text: str) -> None:
    done = cli("ls", day, "--changed", text)
    assert done.code == 2
    assert f"{text!r} is not a share" in done.err


@pytest.mark.parametrize("text", ["3 days", "ago", "2024-00", "-1 days ago", "99999 years ago"])
def test_times_that_are_none(cli: Cli, day: Path, text: str) -> None:
    done = cli("ls", day, "--since", text)
    assert done.code == 2
    assert f"{text!r} is not a time" in done.err


@pytest.mark.parametrize(("text", "days"), [("1 month ago", 31), ("1 year ago", 365.5)])
def test_months_ago(cli: Cli, root: Path, tmp_path: Path, text: str, days: float) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, back in (("new.txt", days - 4), ("old.txt", days + 2)):
        (source / name).write_text(name)
        when = (datetime.now() - timedelta(days=back)).timestamp()
        os.utime(source / name, (when, when))
    assert cli("import", f"{source}/", root).code == 0
    assert names(cli, root, "--since", text) == ["new.txt"]
