"""The results of commands, with and without problems."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fsmount.cli.app import group
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.tree import find
from tests.cli.commands import Cli, Done, process
from tests.support.encoding import forget_caches, put
from tests.support.packs import flip
from tests.support.trees import facts, make_tree

COMMANDS = group.list_commands(click.Context(group))


# Help and usage


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert re.search(rf"Examples?:\n +fsmount {name}[ \n]", done.out)
    assert cli(name, "-h") == done


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(cli: Cli, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for page in ([], ["album"]):
        done = cli(*page, "--help")
        assert done.code == 0
        listed = done.out.partition("\nCommands:\n")[2].splitlines()
        assert listed
        # click makes no page narrower than this.
        assert max(map(len, listed)) <= max(columns, 50)
        if columns >= 80:
            assert not [line for line in listed if line.endswith("...")]
    for name in COMMANDS:
        assert cli(name, "--help").code == 0


def test_another_name_of_a_command(cli: Cli) -> None:
    done = cli("unmount", "--help")
    assert done.out == cli("umount", "--help").out.replace("fsmount umount [", "fsmount unmount [")
    assert "unmount" not in COMMANDS


def test_help_of_all(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.out
    assert re.fullmatch(r"fsmount, version \d+\.\d+\.\d+\n", cli("--version").out)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["init"],
        ["mount"],
        ["mount", "one"],
        ["mount", "one", "two", "three"],
        ["mount", "one", "two", "-o", "sparkling"],
        ["mount", "one", "two", "-o", "umask=9"],
        ["umount"],
        ["umount", "one", "--all"],
        ["mounts", "one"],
        ["import"],
        ["import", "one"],
        ["export", "one"],
        ["verify", "one"],
        ["ls"],
        ["ls", "one", "two", "three"],
        ["cat", "one"],
        ["stats"],
        ["stats", "--shiny", "one"],
        ["check", "one", "two"],
        *(["verify", "one", "two", f"--cache-size={bad}"] for bad in ("lots", "-1", "1e999", "")),
    ],
)
def test_usage(cli: Cli, root: Path, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_a_path_that_is_missing_names_the_help(cli: Cli, root: Path) -> None:
    assert "fsmount export --help" in cli("export", root).sentence()


@pytest.mark.parametrize("text", ["0", "64M", "64m", "1.5G", "512MiB", "100KB", "7"])
def test_sizes(cli: Cli, root: Path, source: Path, text: str) -> None:
    assert cli("verify", source, root, "--cache-size", text).code == 1


# Results


def test_init(cli: Cli, tmp_path: Path) -> None:
    made = cli("init", tmp_path / "deep" / "new", "--json").json()
    assert made["format"] == 1
    assert made["store"] == str(tmp_path / "deep" / "new")
    assert cli("stats", tmp_path / "deep" / "new").code == 0
    for taken in (tmp_path / "deep" / "new", tmp_path):
        again = cli("init", taken)
        assert again.code == 2
        assert "Choose a new path" in again.sentence()


def test_import_export_verify_stats(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (source / "note").write_text("no picture")
    done = cli("import", source, root, "--json").json()
    assert (done["files"], done["skipped"], done["problems"], done["raw"]) == (4, 0, [], [])
    assert done["bytes"] == sum(path.stat().st_size for path in source.iterdir())
    assert done["stats"]["objects"] == {"key": 1, "delta": 2, "jpeg": 0, "raw": 1, "staged": 0}
    words = cli("import", source, root)
    assert words.code == 0
    assert words.out.startswith("0 files imported (0 bytes), 4 existed already; the store ")

    assert cli("verify", source, root) == Done(0, "4/4 identical\n", "")
    assert cli("verify", source, root, "--json").json() == {
        "version": 1,
        "identical": 4,
        "files": 4,
        "problems": [],
    }
    done = cli("export", root, tmp_path / "out", "in/note", "--json").json()
    assert done == {"version": 1, "files": 1, "bytes": 10, "skipped": 0, "problems": []}
    done = cli("export", root, tmp_path / "out", "--json").json()
    assert (done["files"], done["skipped"]) == (3, 1)
    assert facts(tmp_path / "out" / "in") == facts(source)
    words = cli("export", root, tmp_path / "out")
    assert (words.code, words.out) == (0, "0 files exported (0 bytes), 4 existed already\n")

    found = cli("stats", root, "--json").json()
    assert (found["files"], found["frames"], found["max_depth"]) == (4, 3, 1)
    assert found["raw_reasons"] == {"not a PNG": 1}
    words = cli("stats", root)
    assert "1 keyframe, 2 deltas, 1 raw, 0 not encoded yet" in words.out
    assert "raw: 1 x not a PNG" in words.out
    found = cli("check", root, "--json").json()
    assert found == {
        "version": 1,
        "objects": 4,
        "full": False,
        "findings": [],
        "damaged_entries": 0,
        "files_hit": 0,
        "unchecked": [],
        "notices": [],
    }
    assert cli("check", root, "--full").out == "4 objects rebuilt and compared: no damage found\n"


def test_ls(cli: Cli, root: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path / "in")
    cli("import", f"{source}/", root)
    store = open_store(root)
    put(store, b"staged", b"waits")
    store.close()
    done = process("ls", root)
    assert (done.code, done.err) == (0, "")
    assert b"caf\xe9.txt\n" in os.fsencode(done.out)
    lines = [json.loads(line) for line in cli("ls", "--json", root).out.splitlines()]
    rows = {line["name"]: line for line in lines}
    names = sorted([*os.listdir(os.fsencode(source)), b"staged"])
    assert [os.fsencode(line["name"]) for line in lines] == names
    assert {line["version"] for line in lines} == {1}
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds["desk"] == "folder"
    assert kinds["dangling"] == "link"
    assert kinds["pipe"] == "special"
    assert kinds["zero"] == "raw"
    assert rows["staged"]["kind"] == "staged"
    assert rows["staged"]["stored_bytes"] == 5
    assert rows["again.png"]["mtime_ns"] == (source / "again.png").stat().st_mtime_ns
    deep = [
        json.loads(line) for line in cli("ls", root, "/desk/2024 June/", "--json").out.splitlines()
    ]
    assert [(row["name"], row["kind"], row["depth"]) for row in deep] == [
        ("00.png", "key", 0),
        ("01.png", "delta", 1),
        ("02.png", "delta", 1),
    ]
    assert len(deep[0]["sha256"]) == 64
    assert cli("ls", root, "zero").out.split()[-1] == "zero"
    missing = cli("ls", root, "desk/nothing")
    assert missing.code == 1
    assert "there is no 'desk/nothing' in" in missing.sentence()


def listed(done: Done) -> list[str]:
    assert (done.code, done.err) == (0, "")
    return [line.split()[-1] for line in done.out.splitlines()]


def test_ls_of_all_below(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "note").write_text("x")
    cli("import", source, root)
    everything = ["in", "in/00.png", "in/01.png", "in/02.png"]
    everything += ["in/deep", "in/deep/er", "in/deep/er/note"]
    assert listed(cli("ls", "-R", root)) == everything
    assert listed(cli("ls", "--recursive", root, "in/deep")) == everything[-2:]
    assert listed(cli("ls", "-R", root, "in/00.png")) == ["in/00.png"]
    rows = [json.loads(line) for line in cli("ls", "-R", "--json", root).out.splitlines()]
    assert [row["path"] for row in rows] == everything
    assert [row["name"] for row in rows] == [path.rpartition("/")[2] for path in everything]
    assert json.loads(cli("ls", "--json", root, "in").out.splitlines()[0])["path"] == "in/00.png"


@pytest.fixture(name="east")
def two_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is two hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-2")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("east")
def test_ls_of_a_time(cli: Cli, root: Path, source: Path) -> None:
    day = 1_717_624_800  # 2024-06-06 00:00 there
    for name, when in (("00.png", day - 1), ("01.png", day), ("02.png", day + 86399)):
        os.utime(source / name, (when, when))
    (source / "folder").mkdir()
    cli("import", f"{source}/", root)
    for options, names in (
        (["--since", "2024-06-06"], ["01.png", "02.png"]),
        (["--until", "2024-06-06"], ["00.png", "01.png", "02.png"]),
        (["--since", "2024-06-06", "--until", "2024-06-06"], ["01.png", "02.png"]),
        (["--until", "2024-06-05"], ["00.png"]),
        (["--until", "2024-06-06T00:00"], ["00.png", "01.png"]),
        (["--until", "2024-06-05T23:59:59"], ["00.png"]),
        (["--until", "2024-06-05T21:59:59Z"], ["00.png"]),
        (["--since", "2024-06-06 23:59"], ["02.png"]),
        (["--since", "2024-06-06T23:59:59+02:00"], ["02.png"]),
        (["--since", "2024-06-06T23:59:59.000001"], []),
    ):
        assert listed(cli("ls", root, *options)) == names, options
    assert listed(cli("ls", "-R", root, "--since", "2024-06-06T23:59")) == ["02.png"]


@pytest.mark.parametrize("text", ["yesterday", "2024", "2024-13-01", "2024-06-06T25:00", "", "1e9"])
def test_times_that_are_none(cli: Cli, root: Path, text: str) -> None:
    done = cli("ls", root, "--since", text)
    assert done.code == 2
    assert f"{text!r} is not a time" in done.err


def test_cat(cli: Cli, root: Path, source: Path) -> None:
    large = bytes(range(256)) * 20000
    (source / "large").write_bytes(large)
    (source / "none").touch()
    cli("import", f"{source}/", root)
    store = open_store(root)
    put(store, b"staged", b"waits\r\n\x00")
    store.close()
    paths = ["00.png", "02.png", "/large", "none", "staged"]
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "cat", str(root), *paths], capture_output=True, check=True
    )
    pictures = [(source / name).read_bytes() for name in ("00.png", "02.png")]
    assert done.stdout == b"".join(pictures) + large + b"waits\r\n\x00"


def test_cat_of_what_is_no_file(cli: Cli, root: Path, source: Path) -> None:
    (source / "link").symlink_to("00.png")
    cli("import", source, root)
    for path, why in (
        ("in", "'in' in STORE is a folder"),
        ("in/link", "'in/link' in STORE is no regular file"),
        ("in/nothing", "there is no 'in/nothing' in STORE"),
    ):
        done = cli("cat", root, "in/00.png", path)
        assert done.code == 1
        assert done.sentence() == why.replace("STORE", str(root))


def test_ls_into_a_pipe_that_is_closed(cli: Cli, root: Path, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / "in" / f"{number}").parent.mkdir(exist_ok=True)
    store = open_store(root)
    with store.index.transaction():
        for number in range(3000):
            store.index.create(1, b"%d" % number, mode=0o10600, uid=0, gid=0, now_ns=1)
    store.close()
    command = [sys.executable, "-m", "fsmount", "ls", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 1
    closed = f"{sys.executable} -m fsmount stats '{root}' | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", closed], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_names_that_are_not_utf8(root: Path, source: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    done = process("init", odd)
    assert (done.code, done.err) == (0, "")
    assert str(odd) in done.out
    broken = (source / "00.png").read_bytes()[:-20]
    (source / os.fsdecode(b"\xff.png")).write_bytes(broken)
    done = process("import", f"{source}/", odd)
    assert done.code == 3
    assert "1 picture is stored as it is" in done.err
    assert ".png: " in done.err
    assert process("stats", odd, "--json").json()["files"] == 4
    assert process("verify", f"{source}/", odd).out == "4/4 identical\n"


def delete(root: Path, *paths: str) -> None:
    """Delete files of a store, as rm does through a mount."""
    store = open_store(root)
    for path in paths:
        folder, _, name = os.fsencode(path).rpartition(b"/")
        parent = find(store, folder)
        assert parent is not None
        inode = store.index.unlink(parent.ino, name, 1)
        store.index.purge(inode.ino)
    store.close()


def packs_of(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "packs").glob("*.zip"))


def test_what_a_repack_would_give_back(cli: Cli, root: Path, source: Path) -> None:
    for number in range(4):
        (source / f"{number}").write_bytes(os.urandom(50_000))
    cli("import", f"{source}/", root)
    assert cli("stats", root, "--json").json()["reclaimable_bytes"] == 0
    assert "repack" not in cli("stats", root).out
    # A delta needs its keyframe, whose bytes stay.
    delete(root, "0", "1", "00.png")
    dead = cli("stats", root, "--json").json()["reclaimable_bytes"]
    assert 100_000 < dead < 101_000
    assert "repack would give back 100" in cli("stats", root).out
    before = packs_of(root)
    repacked = cli("repack", root, "--json").json()
    assert before - packs_of(root) >= dead
    found = cli("stats", root, "--json").json()
    assert found["reclaimable_bytes"] == 0
    assert repacked["bytes_after"] == found["stored_bytes"]


def test_import_tells_the_size_that_stats_tells(cli: Cli, root: Path, source: Path) -> None:
    told = cli("import", source, root, "--json").json()["stats"]
    found = cli("stats", root, "--json").json()
    assert told.items() <= found.items()
    words = cli("stats", root).out.partition(" in ")[2].partition(",")[0].split("\n")[0]
    assert cli("import", source, root).out.rstrip().endswith(f" in {words}")


def test_numbers_in_words(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    assert cli("stats", root).out.startswith("0 files, 0 bytes in ")
    assert "smaller" not in cli("stats", root).out
    assert cli("import", source / "00.png", root).out.startswith("1 file imported (")
    assert cli("stats", root).out.startswith("1 file, ")
    assert cli("export", root, tmp_path / "out").out.startswith("1 file exported (")


def test_stats_names_the_log(cli: Cli, root: Path) -> None:
    assert cli("stats", root, "--json").json()["log"] is None
    (root / "mount.log").touch()
    assert cli("stats", root, "--json").json()["log"] == f"{root}/mount.log"
    assert f"log of its mounts: {root}/mount.log\n" in cli("stats", root).out


def test_pictures_in_the_trash(cli: Cli, root: Path, source: Path) -> None:
    trash = source / ".Trash-1000" / "files"
    trash.mkdir(parents=True)
    (source / "00.png").rename(trash / "00.png")
    (source / ".Trash-x").mkdir()
    cli("import", f"{source}/", root)
    assert sum(run["pictures"] for run in cli("runs", root, "--json").json()["runs"]) == 2
    inside = cli("runs", root, ".Trash-1000", "--json").json()["runs"]
    assert sum(run["pictures"] for run in inside) == 1
    assert cli("stats", root, "--json").json()["trash_files"] == 1
    assert "1 file (" in cli("stats", root).out.partition("raw")[2]


# Results with problems


def test_some_were_left_out(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (source / "broken.png").write_bytes((source / "00.png").read_bytes()[:-20])
    done = cli("import", source, root)
    assert done.code == 3
    assert done.out.startswith("4 files imported")
    assert "1 picture is stored as it is, because it cannot be re-created:" in done.err
    assert "  in/broken.png: " in done.err
    # A file that is no PNG but has the name of one is reported, too.
    (source / "empty.PNG").touch()
    (source / "text").write_text("of no interest")
    done = cli("import", source, root)
    assert done.code == 3
    assert "  1 x not a PNG\n  in/empty.PNG: not a PNG\n" in done.err
    (source / "note").write_text("1")
    (source / "00.png").unlink()
    (source / "00.png").mkdir()
    done = cli("import", source, root, "--json")
    assert done.code == 3
    assert done.json()["problems"] == [
        [str(source / "00.png"), "the store has a file of this name"]
    ]


def test_verify_lists_differences(cli: Cli, root: Path, source: Path) -> None:
    cli("import", f"{source}/", root)
    (source / "00.png").unlink()
    (source / "01.png").write_bytes(b"other")
    (source / "new").write_bytes(b"new")
    done = cli("verify", f"{source}/", root)
    assert (done.code, done.out) == (1, "1/4 identical\n")
    assert done.err.splitlines()[0] == "3 differ:"
    assert {line.rpartition(": ")[2] for line in done.err.splitlines()[1:]} == {
        "only in the store",
        "other bytes in the store",
        "not in the store",
    }
    found = cli("verify", f"{source}/", root, "--json")
    assert found.code == 1
    assert len(found.json()["problems"]) == 3


def test_verify_of_one_side(cli: Cli, root: Path, source: Path) -> None:
    (source / "only here").write_text("x")
    cli("import", f"{source}/", root)
    (source / "only here").unlink()
    assert cli("verify", f"{source}/", root).code == 1
    assert cli("verify", "--one-way", f"{source}/", root) == Done(0, "3/3 identical\n", "")
    assert cli("verify", "--one-way", source / "01.png", root).out == "1/1 identical\n"
    (source / "01.png").write_bytes(b"other")
    (source / "new").mkdir()
    found = cli("verify", "--one-way", "--json", f"{source}/", root)
    assert found.code == 1
    assert found.json()["problems"] == [
        [str(source / "new"), "no such folder in the store"],
        [str(source / "01.png"), "other bytes in the store"],
    ]


def test_files_are_chosen_by_patterns(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (source / "deep").mkdir()
    for name in ("note", "deep/04.png", "deep/note"):
        (source / name).write_text(name)
    only_pictures = ["--include", "*/", "--include=*.png", "--exclude", "*"]
    done = cli("import", *only_pictures, source, root, "--dry-run", "--json").json()
    assert (done["files"], done["skipped"]) == (4, 0)
    assert cli("import", *only_pictures, source, root, "--json").json()["files"] == 4
    assert cli("verify", source, root).code == 1
    assert cli("verify", *only_pictures, source, root).out == "4/4 identical\n"
    # A pattern leaves files of the store out of a comparison, too.
    (source / "01.png").unlink()
    assert cli("verify", *only_pictures, source, root).code == 1
    assert cli("verify", "--exclude=01.png", *only_pictures, source, root).code == 0
    # The first rule that matches decides.
    dest = tmp_path / "out"
    options = ["--exclude", "00.png", "--include", "*.png", "--include", "00.png"]
    assert cli("export", root, dest, *options, "--json").json()["files"] == 3
    assert sorted(path.name for path in dest.rglob("*.png")) == ["01.png", "02.png", "04.png"]
    dest = tmp_path / "other"
    assert cli("export", "--exclude", "/in/deep/", root, dest, "--json").json()["files"] == 3
    assert not (dest / "in" / "deep").exists()


def test_a_dry_run_counts_what_is_missing(cli: Cli, root: Path, source: Path) -> None:
    cli("import", source / "00.png", root)
    total = sum((source / name).stat().st_size for name in ("01.png", "02.png"))
    before = cli("stats", "--json", root).json()
    done = cli("import", "--dry-run", "--json", f"{source}/", root).json()
    assert done == {
        "version": 1,
        "files": 2,
        "bytes": total,
        "skipped": 1,
        "problems": [],
        "dry_run": True,
    }
    words = cli("import", "--dry-run", "-v", f"{source}/", root).out
    assert words.startswith("01.png\n02.png\n2 files (")
    assert words.endswith(") to import, 1 existed already; nothing was changed\n")
    assert cli("stats", "--json", root).json() == before
    (source / "00.png").unlink()
    (source / "00.png").mkdir()
    told = cli("import", "--dry-run", f"{source}/", root)
    assert told.code == 3
    assert "1 would be left out:" in told.err
    assert "00.png: the store has a file of this name" in told.err
    assert cli("import", f"{source}/", root, "--json").json()["files"] == 2
    assert cli("import", "--dry-run", f"{source}/", root).out.startswith("0 files (0 bytes)")


def test_quiet_and_verbose(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (source / "bad.png").write_text("x")
    done = cli("import", "-q", f"{source}/", root)
    assert (done.code, done.out) == (3, "")
    assert "1 picture is stored as it is" in done.err
    names = ["00.png", "01.png", "02.png", "bad.png"]
    for command in (["verify", source, root], ["export", root, tmp_path / "out"]):
        *found, last = cli(*command, "-v").out.splitlines()
        assert sorted(found) == names
        assert last.startswith("4")
        assert cli(*command, "-q") == Done(0, "", "")
        assert cli(*command, "-q", "-v", "--json").json()


def test_verify_without_the_slash(cli: Cli, root: Path, source: Path) -> None:
    """`import in/` puts the files in the root of the store. `verify in` finds them there, too."""
    cli("import", f"{source}/", root)
    assert cli("verify", source, root).out == cli("verify", f"{source}/", root).out
    assert cli("verify", source, root).code == 0
    (source / "new").write_bytes(b"new")
    assert cli("verify", source, root).code == 1


def test_long_lists_are_cut(cli: Cli, root: Path, source: Path) -> None:
    for number in range(30):
        (source / f"{number}").touch()
    done = cli("verify", source, root)
    assert done.err.count("\n") == 22
    assert done.err.endswith("more (--json lists all)\n")
    assert len(cli("verify", source, root, "--json").json()["problems"]) == 33


def test_damage(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    store = open_read_store(root)
    key = store.index.object(1)
    store.close()
    flip(root / "packs" / "00000001.zip", key.offset + key.length - 1)
    forget_caches()
    assert cli("check", root).code == 0
    done = cli("check", root, "--full")
    assert done.code == 20
    assert done.out == "3 objects rebuilt and compared: 1 finding\n"
    assert done.err.startswith("damaged entries: 1; files that need them: 3\n")
    assert "cannot be read: in/00.png" in done.err
    found = cli("check", root, "--full", "--json")
    assert found.code == 20
    assert (found.json()["damaged_entries"], found.json()["files_hit"]) == (1, 3)
    assert {name for item in found.json()["findings"] for name in item["files"]} == {
        "in/00.png",
        "in/01.png",
        "in/02.png",
    }
    done = cli("export", root, tmp_path / "out")
    assert done.code == 3
    assert "3 problems:" in done.err
    assert cli("verify", source, root).code == 1
    (root / "packs" / "00000001.zip").unlink()
    assert "00000001.zip: the pack is missing" in cli("check", root).err


# Repair


def test_repair_tells_what_it_did(cli: Cli, root: Path, source: Path) -> None:
    assert cli("import", source, root).code == 0
    assert cli("check", "--repair", root).code == 0
    (root / "index.sqlite").unlink()
    assert cli("check", root).code == 20
    done = cli("check", "--repair", "--json", root)
    assert done.code == 21
    found = done.json()
    assert found["rebuilt"]
    assert (found["lost"], found["renamed"], found["left"]) == ([], [], [])
    assert cli("verify", f"{source}", root).code == 0
    pack = root / "packs" / "00000001.zip"
    os.truncate(pack, pack.stat().st_size // 2)
    done = cli("check", "--repair", root)
    assert done.code == 22
    assert "lost: in/" in done.out + done.err
    assert cli("check", "--full", root).code == 0
    assert cli("check", "--repair", root).code == 0


def test_repair_needs_a_store_for_itself(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("check", "--repair", tmp_path / "none").code == 10
    store = open_store(root)
    try:
        assert cli("check", "--repair", root).code == 11
    finally:
        store.close()
