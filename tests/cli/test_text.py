"""`fsmount text`, `fsmount search` and `fsmount exclude`: results, JSON and errors."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from fsmount.cli import text as text_command
from fsmount.store.layout import Layout
from fsmount.text.database import TextDatabase, path_of, writing
from tests.cli.commands import Cli
from tests.support.drawn_words import DrawnEngine, save, screen


@pytest.fixture(autouse=True)
def another_engine(monkeypatch: pytest.MonkeyPatch) -> list[DrawnEngine]:
    """Text is read by the engine of the tests, at normal priority."""
    made: list[DrawnEngine] = []

    def engine(name: str, languages: object) -> DrawnEngine:
        made.append(DrawnEngine())
        return made[-1]

    monkeypatch.setattr(text_command, "engine_of", engine)
    monkeypatch.setattr(text_command, "be_last", lambda when_idle: None)
    monkeypatch.setattr(text_command, "on_mains", lambda: True)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return made


@pytest.fixture(name="shots")
def a_store_with_text(cli: Cli, root: Path, tmp_path: Path) -> Path:
    """Four pictures: a panel in all, a budget in two, and a letter in the last one."""
    folder = tmp_path / "desk"
    folder.mkdir()
    for minute in range(4):
        lines = [("menu panel", 10, 4)]
        lines += [("annual budget 2024", 30, 60)] if minute in (1, 2) else []
        lines += [("dear reader", 30, 120)] if minute == 3 else []
        save(screen(lines), folder / f"2024-06-06T08:{minute:02}:00+00:00.png")
    assert cli("import", folder, root).code == 0
    return root


@pytest.fixture(name="read")
def a_store_whose_text_was_read(cli: Cli, shots: Path) -> Path:
    done = cli("text", shots)
    assert done.code == 0, done.err
    return shots


def test_text_tells_what_it_read(cli: Cli, shots: Path) -> None:
    done = cli("text", shots, "--json").json()
    size = (shots / "text.sqlite").stat().st_size
    assert (done["read"], done["left"], done["bytes"], done["problems"]) == (4, 0, size, [])
    again = cli("text", shots)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("the text of 0 pictures was read; the words take ")


def test_text_stops_on_battery(cli: Cli, shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_command, "on_mains", lambda: False)
    done = cli("text", shots)
    assert done.code == 0
    assert "4 pictures are left (--on-battery goes on)" in done.out
    assert cli("text", shots, "--on-battery", "--json").json()["read"] == 4


def test_text_names_what_it_left_out(cli: Cli, shots: Path, tmp_path: Path) -> None:
    broken = tmp_path / "desk/2024-06-06T09:00:00+00:00.png"
    broken.write_bytes(b"no picture" * 100)
    assert cli("import", tmp_path / "desk", shots).code == 3
    done = cli("text", shots)
    assert done.code == 3
    assert "desk/2024-06-06T09:00:00+00:00.png: it cannot be decoded" in done.err


def test_search(cli: Cli, read: Path) -> None:
    done = cli("search", read, "Budget")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "2024-06-06 08:01 to 08:02  desk/2024-06-06T08:02:00+00:00.png",
        "    annual budget 2024  [37x12+81+60]",
    ]


def test_search_in_json(cli: Cli, read: Path) -> None:
    found = cli("search", read, "annual", "budget", "--json").json()
    assert (found["query"], found["more"], found["instead"]) == ("annual budget", False, [])
    (hit,) = found["hits"]
    assert hit == {
        "first": "desk/2024-06-06T08:01:00+00:00.png",
        "last": "desk/2024-06-06T08:02:00+00:00.png",
        "first_us": 1717660860000000,
        "last_us": 1717660920000000,
        "pictures": 2,
        "seconds": 60.0,
        "text": "annual budget 2024",
        "rectangles": [[30, 60, 37, 12], [81, 60, 37, 12]],
    }


def test_search_for_phrases_times_and_folders(cli: Cli, read: Path) -> None:
    assert cli("search", read, '"budget 2024"').code == 0
    assert cli("search", read, '"2024 budget"').code == 1
    assert cli("search", read, "budget", "--since", "2024-06-06T08:02").code == 0
    assert cli("search", read, "budget", "--since", "2024-06-06T08:03").code == 1
    assert cli("search", read, "budget", "--until", "2024-06-06T08:01").code == 0
    assert cli("search", read, "budget", "--until", "2024-06-06T08:00").code == 1
    assert cli("search", read, "budget", "--in", "desk").code == 0
    assert cli("search", read, "budget", "--in", "laptop").code == 1


def test_nothing_is_found(cli: Cli, read: Path) -> None:
    done = cli("search", read, "xylophone")
    assert (done.code, done.out) == (1, "nothing was found\n")
    assert cli("search", read, "xylophone", "--json").out.count('"hits": []') == 1


def test_similar_words_are_told(cli: Cli, read: Path) -> None:
    done = cli("search", read, "budgat")
    assert done.code == 0
    assert done.err == "nothing has these words; similar ones: budget\n"
    assert "annual budget 2024" in done.out


def test_a_limit(cli: Cli, read: Path) -> None:
    assert cli("search", read, "menu", "--limit", "1").out.count("desk/") == 1


def test_open(cli: Cli, read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    opener = programs / "xdg-open"
    opener.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/opened\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert cli("search", read, "budget", "--open").code == 0
    source = tmp_path / "desk/2024-06-06T08:02:00+00:00.png"
    assert (tmp_path / "opened").read_bytes() == source.read_bytes()


def test_without_text(cli: Cli, shots: Path) -> None:
    done = cli("search", shots, "budget")
    assert done.code == 10
    assert done.sentence().endswith(f"Read them with: fsmount text {shots}")


def test_a_query_without_letters(cli: Cli, read: Path) -> None:
    assert cli("search", read, "--", "-").code == 2
    assert cli("search", read).code == 2


def test_exclude(cli: Cli, read: Path) -> None:
    assert cli("search", read, "menu").code == 0
    done = cli("exclude", "set", "--area", "0,0,480,20", "--redact", "^2024$", read)
    assert done.out.splitlines() == [
        "area 0,0,480,20 is not read",
        "what matches '^2024$' is not shown",
    ]
    assert cli("search", read, "menu").code == 1
    assert "annual budget\n" not in cli("search", read, "2024").out
    assert cli("search", read, "budget", "--json").json()["hits"][0]["text"] == "annual budget"
    shown = cli("exclude", "show", "--json", read).json()
    assert shown["areas"] == ["0,0,480,20"]
    assert cli("text", read).code == 0
    assert cli("exclude", "clear", read).out == "nothing is excluded\n"
    # What was excluded when text was read is gone for good; what was redacted is there.
    assert cli("search", read, "menu").code == 1
    assert cli("search", read, "2024").code == 0
    assert cli("exclude", "set", read).code == 2


def test_text_keeps_its_exclusions(cli: Cli, shots: Path) -> None:
    excluded = "--exclude", "0,0,480,20", "--exclude-hours", "12:00-13:00"
    assert cli("text", *excluded, shots).code == 0
    assert cli("search", shots, "panel").code == 1
    lines = cli("exclude", "show", shots).out.splitlines()
    assert lines == ["area 0,0,480,20 is not read", "pictures of 12:00-13:00 are not read"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--area", "1,2,3"),
        ("--area", "0,0,0,5"),
        ("--hours", "25:00-26:00"),
        ("--hours", "12:00-12:00"),
        ("--hours", "12:99-13:00"),
        ("--redact", "("),
    ],
)
def test_bad_exclusions(cli: Cli, root: Path, arguments: tuple[str, str]) -> None:
    done = cli("exclude", "set", *arguments, root)
    assert done.code == 2
    assert not (root / "text.json").exists()


def test_damaged_exclusions_show_nothing(cli: Cli, read: Path) -> None:
    (read / "text.json").write_text("{")
    for command in (("search", read, "budget"), ("text", read), ("exclude", "show", read)):
        done = cli(*command)
        assert done.code == 1
        assert "Remove the file, and set the exclusions again" in done.sentence()


def test_a_damaged_database_is_told_and_made_again(cli: Cli, read: Path) -> None:
    database = read / "text.sqlite"
    database.write_bytes(b"\xff" * 20_000)
    for command in (("search", read, "budget"), ("text", read)):
        done = cli(*command)
        assert done.code == 20
        assert "Remove the file, and fsmount text makes it again." in done.sentence()
    assert cli("check", "--full", read).code == 0
    database.unlink()
    assert cli("text", read, "--json").json()["read"] == 4
    assert cli("search", read, "budget").code == 0


def test_words_of_another_format_are_made_anew(cli: Cli, read: Path) -> None:
    with TextDatabase(path_of(Layout(read)), read_only=False) as database:
        database.set_fact("format", "999")
    assert cli("search", read, "budget").code == 10
    assert cli("text", read, "--json").json()["read"] == 4


def test_pruned_pictures_are_found_no_more(cli: Cli, read: Path) -> None:
    assert cli("prune", "--yes", "--keep-last", "1", read).code == 0
    assert cli("search", read, "budget").code == 1
    assert cli("search", read, "reader").code == 0
    assert cli("text", read, "--json").json()["removed"] == 0
    assert b"budget" not in (read / "text.sqlite").read_bytes()


def test_check_and_copies_leave_the_words_alone(cli: Cli, read: Path, tmp_path: Path) -> None:
    checked = cli("check", read)
    assert checked.code == 0
    assert "text" not in checked.out + checked.err
    assert cli("backup", read, tmp_path / "backup").code == 0
    assert not list((tmp_path / "backup").rglob("text.*"))
    assert json.loads((read / "fsmount.json").read_text())["format"] == 2


def secrets_in(store: Path) -> set[bytes]:
    """Which words of the last two pictures are in the bytes of a store."""
    data = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    return {word for word in (b"budget", b"reader") if word in data}


def test_pruned_words_are_wiped_out(cli: Cli, read: Path) -> None:
    assert cli("text", read, "-q").code == 0
    assert secrets_in(read) == {b"budget", b"reader"}
    done = cli("prune", "-y", "--keep-last", "1", read)
    assert (done.code, done.err) == (0, "")
    assert secrets_in(read) == {b"reader"}
    # What comes back from the trash is read again.
    assert cli("trash", "restore", read).code == 0
    assert cli("text", read, "--json").json()["read"] == 3
    assert secrets_in(read) == {b"budget", b"reader"}
    assert cli("prune", "-y", "--no-trash", "--keep-last", "1", read).code == 0
    assert secrets_in(read) == {b"reader"}


def test_a_prune_does_not_wait_for_the_reading_of_text(
    cli: Cli, read: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(Layout(read)):
        done = cli("prune", "-y", "--keep-last", "1", read)
    assert done.code == 0
    assert "another fsmount reads the text of this store now" in done.err
    assert secrets_in(read) == {b"budget", b"reader"}
    # Whatever removes pictures next does it.
    assert cli("trash", "empty", "-y", read).err == ""
    assert secrets_in(read) == {b"reader"}


def test_a_prune_with_damaged_words(cli: Cli, read: Path) -> None:
    path_of(Layout(read)).write_bytes(b"no database" * 1000)
    done = cli("prune", "-y", "--keep-last", "1", read)
    assert done.code == 0
    assert "the words of what was removed may still be in the store" in done.err
    assert "Remove the file, and fsmount text makes it again" in done.err
    assert len(cli("trash", "list", read).out.splitlines()) == 3
