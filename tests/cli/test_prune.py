"""`fsmount prune` and `fsmount trash`: what goes, what is said before, and the way back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsmount.store.index import ROOT
from fsmount.store.store import open_store
from tests.cli.commands import Cli, process
from tests.support.encoding import ino_of
from tests.support.frames import png, screens

DAY = 86400


@pytest.fixture(name="filled")
def a_store_of_three_days(cli: Cli, root: Path, tmp_path: Path) -> Path:
    """Four pictures on each of three days, in two series, and a note."""
    frames = iter(screens(24, height=64))
    for screen in ("left", "right"):
        for day in ("2024-06-05", "2024-06-06", "2024-06-07"):
            folder = tmp_path / "in" / screen / day
            folder.mkdir(parents=True)
            for hour in (8, 9, 10, 11):
                (folder / f"{day}T{hour:02d}:00:00.png").write_bytes(png(next(frames)))
    note = tmp_path / "in" / "note.txt"
    note.write_text("keep me")
    os.utime(note, (1, 1))
    assert cli("import", f"{tmp_path / 'in'}/", root).code == 0
    return root


def shown(cli: Cli, store: Path) -> list[str]:
    """Paths of all files of a store."""
    rows = [json.loads(line) for line in cli("ls", "-R", store, "--json").out.splitlines()]
    return [row["path"] for row in rows if row["kind"] != "folder"]


def state(root: Path) -> dict[Path, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-shm", "-wal"))}


def test_a_dry_run_changes_nothing(cli: Cli, filled: Path) -> None:
    before = state(filled)
    done = cli("prune", "-n", "--keep-last", "2", filled)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["files", "bytes"]
    assert [line[-3] for line in lines[1:4]] == ["24", "20", "4"]
    assert lines[4][0] == "frees"
    assert done.out.rstrip().endswith("when it leaves the trash, after 30 days")
    said = cli("prune", "--dry-run", "--keep-last", "2", filled, "--json").json()
    assert (said["files"], said["dropped"], said["dry_run"]) == (24, 20, True)
    assert said["freed_bytes"] > 0
    named = cli("prune", "-n", "-v", "--keep-last", "2", filled).out.splitlines()
    assert named[0] == "left/2024-06-05/2024-06-05T08:00:00.png"
    assert len(named) == 20 + 5
    assert state(filled) == before


def test_each_series_is_pruned_by_itself(cli: Cli, filled: Path) -> None:
    """Folders of days belong to the folder of their screen."""
    assert cli("prune", "-y", "-q", "--keep-last", "1", "--keep-daily", "1", filled).out == ""
    left = shown(cli, filled)
    assert len(left) == 2 + 1 or len(left) == 4 + 1
    assert {path.split("/")[0] for path in left} == {"left", "right", "note.txt"}
    assert all(day in path for path in left if path != "note.txt" for day in ["2024-06-07"])


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], 24),
        (["--keep-within", "1d"], 8),
        (["--keep-within", "25h", "--keep-last", "7"], 14),
        (["--keep-daily", "forever", "--since", "2024-06-06", "--until", "2024-06-06"], 19),
        (["--keep-last", "1", "--include", "*/", "--exclude", "*T09*"], 8),
        (["--drop-idle"], 7),
    ],
)
def test_what_stays(cli: Cli, filled: Path, options: list[str], left: int) -> None:
    assert cli("prune", "--yes", filled, *options).code == 0
    assert len(shown(cli, filled)) == left + 1
    assert cli("check", "--full", filled).code == 0
    # A second prune by the same rules finds nothing to do.
    again = cli("prune", "--yes", filled, *options, "--json").json()
    assert (again["files"], again["dropped"]) != (24, 0) or left == 24
    assert cli("prune", "--yes", filled, *options, "--json").json()["dropped"] == 0


def test_paths_and_other_files(cli: Cli, filled: Path) -> None:
    assert cli("prune", "-y", "--keep-last", "1", filled, "left", "left/2024-06-05").code == 0
    assert len(shown(cli, filled)) == 1 + 12 + 1
    assert cli("prune", "-y", "--all-files", "--keep-last", "1", filled, "note.txt").code == 0
    assert "note.txt" in shown(cli, filled)
    missing = cli("prune", "-y", "--keep-last", "1", filled, "nothing")
    assert missing.code == 1
    assert "there is no 'nothing' in" in missing.err


def test_the_attribute_comes_in_with_a_file(cli: Cli, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for hour, frame in enumerate(screens(3, height=64)):
        (folder / f"2024-06-05T{hour:02d}:00:00.png").write_bytes(png(frame))
    os.setxattr(folder / "2024-06-05T00:00:00.png", "user.fsmount.keep", b"")
    os.setxattr(folder / "2024-06-05T01:00:00.png", "user.fsmount.kind", b"x")
    assert cli("import", f"{folder}/", root).code == 0
    assert cli("prune", "-y", "--keep-last", "1", root).code == 0
    assert shown(cli, root) == ["2024-06-05T00:00:00.png", "2024-06-05T02:00:00.png"]
    assert cli("export", root, tmp_path / "out").code == 0
    assert os.listxattr(tmp_path / "out" / "2024-06-05T00:00:00.png") == ["user.fsmount.keep"]


def test_files_that_the_user_keeps(cli: Cli, filled: Path, tmp_path: Path) -> None:
    kept = "left/2024-06-05/2024-06-05T09:00:00.png"
    with open_store(filled) as store:
        folder = ino_of(store, b"left")
        day = store.index.lookup(folder, b"2024-06-05")
        assert day is not None
        found = store.index.lookup(day.ino, os.path.basename(kept).encode())
        assert found is not None
        store.index.set_xattr(found.ino, b"user.fsmount.keep", b"1")
    names = tmp_path / "list"
    names.write_text("# kept\n\n2024-06-06T08:00:00.png\nright/2024-06-05/2024-06-05T10:00:00.png")
    options = ["--keep-within", "1h", "--keep-list", names]
    assert cli("prune", "-y", filled, *options).code == 0
    assert shown(cli, filled) == [
        kept,
        "left/2024-06-06/2024-06-06T08:00:00.png",
        "left/2024-06-07/2024-06-07T11:00:00.png",
        "note.txt",
        "right/2024-06-05/2024-06-05T10:00:00.png",
        "right/2024-06-06/2024-06-06T08:00:00.png",
        "right/2024-06-07/2024-06-07T11:00:00.png",
    ]
    absent = cli("prune", "-y", filled, "--keep-list", tmp_path / "none")
    assert absent.code == 2


def test_the_budget(cli: Cli, filled: Path) -> None:
    nothing = cli("prune", "-n", "--json", "--budget", "1G", filled).json()
    assert (nothing["dropped"], nothing["over_budget"]) == (0, False)
    assert nothing["months_left"] > 1
    budget = nothing["left_bytes"] - 5000
    some = cli("prune", "-n", "--json", "--budget", budget, filled).json()
    assert 0 < some["dropped"] < 24
    assert some["left_bytes"] <= budget
    text = cli("prune", "-n", "--budget", "1G", filled).out.splitlines()[-1]
    assert text.startswith("about ") and text.endswith(" until the budget of 1.1 GB is full")
    # What the rules keep stays, whatever the budget is.
    done = process("prune", "-y", "--json", "--budget", "1", "--keep-last", "2", filled)
    assert done.code == 3
    assert json.loads(done.out)["dropped"] == 20
    assert "more than the budget of 1 bytes" in done.err


def test_nobody_can_be_asked(cli: Cli, filled: Path) -> None:
    before = shown(cli, filled)
    done = process("prune", "--keep-last", "1", filled)
    assert done.code == 2
    assert "--yes goes on without a question" in done.err
    assert process("trash", "empty", filled).code == 0
    assert shown(cli, filled) == before
    assert cli("prune", "-y", "--keep-last", "1", filled).code == 0
    assert process("trash", "empty", filled).code == 2


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 25), (b"y\n", 3)])
def test_the_question_on_a_terminal(cli: Cli, filled: Path, answer: bytes, left: int) -> None:
    terminal, other = pty.openpty()
    try:
        os.write(terminal, answer)
        command = [sys.executable, "-m", "fsmount", "prune", "--keep-last", "1", str(filled)]
        done = subprocess.run(command, stdin=other, capture_output=True, timeout=100, check=False)
    finally:
        os.close(terminal)
        os.close(other)
    assert b"Remove 22 pictures?" in done.stderr
    assert (done.returncode == 0) == (answer == b"y\n")
    assert len(shown(cli, filled)) == left


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--keep-within", "7"], "--keep-within needs an interval, such as 30d"),
        (["--keep-daily", "7x"], "'7x' is no amount; write for example 24, 30d, 1y6m or forever"),
        (["--budget", "x"], "'x' is not a size"),
    ],
)
def test_wrong_rules(cli: Cli, filled: Path, options: list[str], text: str) -> None:
    done = cli("prune", "-y", filled, *options)
    assert done.code == 2
    assert text in done.err


def test_the_way_back(cli: Cli, filled: Path, tmp_path: Path) -> None:
    source = f"{tmp_path / 'in'}/"
    everything = shown(cli, filled)
    assert cli("prune", "-y", "--keep-last", "1", filled).code == 0
    stats = cli("stats", filled, "--json").json()
    assert (stats["files"], stats["deleted_files"]) == (3, 22)
    assert "in the trash of the store, beside these: 22 files" in cli("stats", filled).out
    rows = [json.loads(line) for line in cli("trash", "list", filled, "--json").out.splitlines()]
    assert [row["path"] for row in rows] == sorted(set(everything) - set(shown(cli, filled)))
    assert abs(rows[0]["deleted_ns"] / 10**9 - time.time()) < 100
    assert len(cli("trash", "list", filled).out.splitlines()) == 22
    assert cli("check", "--full", filled).code == 0
    assert cli("trash", "restore", filled, "left").out == "11 files restored\n"
    assert cli("trash", "restore", filled, "left").err.endswith("there is no 'left' in the trash\n")
    # A new file has the name of one in the trash.
    with open_store(filled) as store:
        right = ino_of(store, b"right")
        day = store.index.lookup(right, b"2024-06-05")
        assert day is not None
        name = b"2024-06-05T08:00:00.png"
        store.index.create(day.ino, name, mode=0o120777, uid=0, gid=0, now_ns=1, target=b"x")
    done = cli("trash", "restore", filled)
    assert done.code == 3
    assert "another file has its name now" in done.err
    with open_store(filled) as store:
        store.index.purge(store.index.unlink(day.ino, name, 1).ino)
    assert cli("trash", "restore", filled, "-v").out.splitlines() == [
        "right/2024-06-05/2024-06-05T08:00:00.png",
        "1 file restored",
    ]
    assert shown(cli, filled) == everything
    assert cli("verify", source, filled).out == "25/25 identical\n"


def test_folders_that_are_gone_come_back(cli: Cli, filled: Path) -> None:
    assert cli("prune", "-y", "--keep-within", "1h", filled, "left").code == 0
    with open_store(filled) as store:
        left = ino_of(store, b"left")
        store.index.purge(store.index.unlink(left, b"2024-06-05", 1).ino)
    assert cli("trash", "restore", filled, "left/2024-06-05").out == "4 files restored\n"
    assert cli("check", filled).code == 0
    with open_store(filled) as store:
        store.index.create(ROOT, b"x", mode=0o100600, uid=0, gid=0, now_ns=1, staged=None)


def test_space_comes_back(cli: Cli, filled: Path, tmp_path: Path) -> None:
    said = cli("prune", "-n", "--json", "--keep-last", "1", filled).json()["freed_bytes"]
    packs = sum(path.stat().st_size for path in (filled / "packs").glob("0*"))
    assert cli("prune", "-y", "--keep-last", "1", filled).code == 0
    assert cli("trash", "empty", "-y", filled, "--json").json()["removed"] == 22
    freed = packs - sum(path.stat().st_size for path in (filled / "packs").glob("0*"))
    assert abs(freed - said) <= max(0.02 * freed, 200)
    # Also of packs that became shorter, as they have parity.
    checked = cli("check", "--full", filled)
    assert (checked.code, "notice" in checked.out) == (0, False)
    assert cli("trash", "list", filled).out == ""


def test_without_the_trash(cli: Cli, filled: Path) -> None:
    packs = sum(path.stat().st_size for path in (filled / "packs").glob("0*"))
    done = cli("prune", "-y", "--no-trash", "--keep-last", "1", filled)
    assert done.out.splitlines()[-1] == "the space comes back at once"
    assert cli("trash", "list", filled).out == ""
    assert sum(path.stat().st_size for path in (filled / "packs").glob("0*")) < packs
    assert cli("check", "--full", filled).code == 0


def test_limits_of_the_trash(cli: Cli, filled: Path) -> None:
    assert cli("trash", "limit", filled).out == "the trash keeps files for 30 days\n"
    assert cli("prune", "-y", "--keep-last", "8", filled).code == 0
    assert len(cli("trash", "list", filled).out.splitlines()) == 8
    done = cli("trash", "limit", "--days", "none", "--size", "10G", filled, "--json").json()
    assert (done["days"], done["bytes"]) == (None, 10 << 30)
    text = "the trash keeps files without an end, at most 10.7 GB of them\n"
    assert cli("trash", "limit", filled).out == text
    assert len(cli("trash", "list", filled).out.splitlines()) == 8
    assert cli("trash", "limit", "--size", "0", filled).code == 0
    assert cli("trash", "list", filled).out == ""
    assert cli("trash", "limit", "--days", "0", "--size", "none", filled).code == 0
    assert cli("prune", "-y", "--keep-last", "1", filled).out.endswith("comes back at once\n")
    assert cli("trash", "list", filled).out == ""
    assert cli("check", "--full", filled).code == 0


def test_packs_alone_give_back_what_is_shown(cli: Cli, filled: Path, tmp_path: Path) -> None:
    """Index and copy are lost: objects of which only a part is left are needed all the same."""
    assert cli("prune", "-y", "--no-trash", "--keep-last", "2", filled).code == 0
    kept = shown(cli, filled)
    for lost in [*filled.glob("index.sqlite*"), filled / "packs" / "names.gz"]:
        lost.unlink()
    cli("check", "--repair", filled)
    assert set(kept) <= set(shown(cli, filled))
    for path in kept:
        assert cli("export", "--force", filled, tmp_path / "out", path).code == 0
        assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "in" / path).read_bytes()


def test_the_trash_survives_a_lost_index(cli: Cli, filled: Path) -> None:
    everything = shown(cli, filled)
    assert cli("prune", "-y", "--keep-last", "1", filled).code == 0
    for path in filled.glob("index.sqlite*"):
        path.unlink()
    assert cli("check", "--repair", filled).code == 21
    assert len(shown(cli, filled)) == 3
    assert cli("trash", "restore", filled).out == "22 files restored\n"
    assert shown(cli, filled) == everything
    assert cli("check", "--full", filled).code == 0
