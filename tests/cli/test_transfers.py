"""The results of import, export and verify, with and without problems."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.commands import Cli, Done, process
from tests.support.trees import facts


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
    assert (found["files"], found["frames"], found["max_depth"]) == (4, 3, 2)
    assert found["raw_reasons"] == {"not a PNG": 1}
    words = cli("stats", root)
    assert "1 keyframe, 2 deltas, 1 raw, 0 not encoded yet" in words.out
    assert "raw: 1 x not a PNG" in words.out
    found = cli("check", root, "--json").json()
    assert found == {
        "version": 1,
        "objects": 4,
        "full": False,
        "elsewhere": 0,
        "findings": [],
        "damaged_entries": 0,
        "files_hit": 0,
        "unchecked": [],
        "notices": [],
    }
    assert cli("check", root, "--full").out == "4 objects rebuilt and compared: no damage found\n"


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
        [str(source / "01.png"), "other bytes in the store"],
        [str(source / "new"), "no such folder in the store"],
    ]


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
