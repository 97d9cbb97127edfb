"""What ls and cat show of a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.store.store import open_store
from tests.cli.commands import Cli, Done, process
from tests.support.encoding import put
from tests.support.trees import make_tree


def listed(done: Done) -> list[str]:
    assert (done.code, done.err) == (0, "")
    return [line.split()[-1] for line in done.out.splitlines()]


@pytest.fixture(name="east")
def two_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is two hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-2")
        time.tzset()
        yield
    time.tzset()


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
        ("02.png", "delta", 2),
    ]
    assert len(deep[0]["sha256"]) == 64
    assert cli("ls", root, "zero").out.split()[-1] == "zero"
    missing = cli("ls", root, "desk/nothing")
    assert missing.code == 1
    assert "there is no 'desk/nothing' in" in missing.sentence()


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
