"""The command line is a contract: exit codes, JSON, messages that say what to do, no traceback.

Most runs are in this process; what concerns the process itself is started as one.
"""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from fsmount.cli import main
from fsmount.cli.app import group
from fsmount.store.config import Lock
from fsmount.store.encoder import Encoder
from fsmount.store.store import Store
from tests.encoding import forget_caches, put
from tests.frames import png, screens
from tests.trees import facts, make_pictures, make_store, make_tree

COMMANDS = list(group.commands)
FORMAT_2 = b'{"format": 2, "uuid": "x"}'


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Its result; stdout is one object and nothing else, stderr is empty."""
        assert self.err == ""
        assert self.out.count("\n") == 1
        found = json.loads(self.out)
        assert isinstance(found, dict)
        assert found["version"] == 1
        return found

    def sentence(self) -> str:
        """Its error: one line on stderr, nothing on stdout."""
        assert self.out == ""
        assert self.err.startswith("fsmount: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("fsmount: ").strip()


Cli = Callable[..., Done]


@pytest.fixture(name="cli")
def cli_in_process(capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    logger = logging.getLogger()
    before = list(logger.handlers)

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    yield run
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FSMOUNT_STORE", "FSMOUNT_CACHE_SIZE", "FSMOUNT_LOG"):
        monkeypatch.delenv(name, raising=False)
    return make_store(tmp_path / "store", monkeypatch)


@pytest.fixture(name="source")
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "in")
    return tmp_path / "in"


def process(*arguments: object, **variables: str) -> Done:
    """A command as a process of its own."""
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, capture_output=True, timeout=100, check=False, env=environment, cwd="/"
    )
    err = done.stderr.decode(errors="surrogateescape")
    assert "Traceback" not in err, err
    return Done(done.returncode, done.stdout.decode(errors="surrogateescape"), err)


# Help and usage


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert re.search(rf"Examples?:\n +fsmount {name} ", done.out)
    assert cli(name, "-h") == done


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
        ["import"],
        ["import", "one"],
        ["export", "one"],
        ["verify", "one"],
        ["ls"],
        ["ls", "one", "two", "three"],
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
    assert words.out.startswith("0 files imported (0 bytes), 4 were there already; the store ")

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
    assert (words.code, words.out) == (0, "0 files exported (0 bytes), 4 were there already\n")

    found = cli("stats", root, "--json").json()
    assert (found["files"], found["frames"], found["max_depth"]) == (4, 3, 1)
    assert found["raw_reasons"] == {"not a PNG": 1}
    words = cli("stats", root)
    assert "1 keyframes, 2 deltas, 1 raw, 0 not encoded yet" in words.out
    assert "raw: 1 x not a PNG" in words.out
    found = cli("check", root, "--json").json()
    assert found == {"version": 1, "objects": 4, "full": False, "findings": [], "unchecked": []}
    assert cli("check", root, "--full").out == "4 objects rebuilt and compared: no damage found\n"


def test_ls(cli: Cli, root: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path / "in")
    cli("import", f"{source}/", root)
    store = Store.open(root)
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


def test_ls_into_a_pipe_that_is_closed(cli: Cli, root: Path, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / "in" / f"{number}").parent.mkdir(exist_ok=True)
    store = Store.open(root)
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
    assert "1 pictures are kept as they are" in done.err
    assert ".png: " in done.err
    assert process("stats", odd, "--json").json()["files"] == 4
    assert process("verify", f"{source}/", odd).out == "4/4 identical\n"


# Results that are not all well


def test_some_were_left_out(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (source / "broken.png").write_bytes((source / "00.png").read_bytes()[:-20])
    done = cli("import", source, root)
    assert done.code == 3
    assert done.out.startswith("4 files imported")
    assert "1 pictures are kept as they are, since they cannot be re-created:" in done.err
    assert "  in/broken.png: " in done.err
    # Not a PNG at all, but called one: that is worth a word, too.
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


def test_verify_without_the_slash(cli: Cli, root: Path, source: Path) -> None:
    """What went in with a slash at its end lies in the root, and is meant without one, too."""
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


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_damage(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    store = Store.open(root, read_only=True)
    key = store.index.object(1)
    store.close()
    flip(root / "packs" / "00000001.zip", key.offset + key.length - 1)
    forget_caches()
    assert cli("check", root).code == 0
    done = cli("check", root, "--full")
    assert done.code == 20
    assert done.out == "3 objects rebuilt and compared: 3 findings\n"
    assert "cannot be read: in/00.png" in done.err
    found = cli("check", root, "--full", "--json")
    assert found.code == 20
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


# Errors that are told in one sentence


def each(root: Path, source: Path, tmp_path: Path) -> dict[str, list[object]]:
    """A plain use of every command that needs a store and no mount."""
    return {
        "import": [source, root],
        "export": [root, tmp_path / "out"],
        "verify": [source, root],
        "ls": [root],
        "stats": [root],
        "check": [root],
    }


USES = ["import", "export", "verify", "ls", "stats", "check"]


@pytest.mark.parametrize("what", ["nothing", "folder", "file"])
@pytest.mark.parametrize("name", [*USES, "mount"])
def test_no_store(cli: Cli, source: Path, tmp_path: Path, name: str, what: str) -> None:
    place = tmp_path / "place"
    if what == "folder":
        place.mkdir()
    if what == "file":
        place.touch()
    uses = each(place, source, tmp_path)
    uses["mount"] = [place, tmp_path]
    done = cli(name, *uses[name])
    assert done.code == 10
    assert done.sentence() == f"{place} is no fsmount store. Make one with: fsmount init {place}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [*USES, "mount"])
def test_a_format_of_the_future(
    cli: Cli, root: Path, source: Path, tmp_path: Path, name: str
) -> None:
    (root / "fsmount.json").write_bytes(FORMAT_2)
    uses = each(root, source, tmp_path)
    uses["mount"] = [root, source]
    done = cli(name, *uses[name])
    assert done.code == 30
    assert "is a store of format 2" in done.sentence()


@pytest.mark.parametrize("how", ["pages", "first page", "cut", "empty", "text", "missing"])
@pytest.mark.parametrize("name", USES)
def test_a_damaged_index(
    cli: Cli, root: Path, source: Path, tmp_path: Path, name: str, how: str
) -> None:
    (source / "more").write_text("to import")
    index = root / "index.sqlite"
    data = bytearray(index.read_bytes())
    if how == "pages":
        for page in range(1, len(data) // 4096):
            data[page * 4096 + 4000] ^= 1
    if how == "first page":
        data[200] ^= 1
    if how == "cut":
        del data[5000:]
    if how == "text":
        data = bytearray(b"not a database, but long enough to be looked at " * 200)
    index.unlink() if how == "missing" else index.write_bytes(b"" if how == "empty" else data)
    done = cli(name, *each(root, source, tmp_path)[name])
    assert done.code == 20, done
    assert "index.sqlite" in done.err
    assert "damage" in done.err or name == "check"
    assert sorted(source.iterdir())[-1].read_text() == "to import"


def test_locked(root: Path, source: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from fsmount.store.config import Lock\n"
            "lock = Lock(Path(sys.argv[1])); print(flush=True); sys.stdin.read()",
            root / "lock",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = process("import", source, root)
        assert done.code == 11
        assert f"in use by another fsmount process (process {holder.pid})" in done.sentence()
        for name in ("ls", "stats", "check", "export"):
            assert process(name, *each(root, source, tmp_path)[name]).code == 0
        assert process("verify", source, root).code == 1
    assert process("import", source, root).code == 0


def test_mountpoints_that_cannot_be_used(
    cli: Cli, root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.mount.session.check_fuse", lambda options: None)
    for place, why in (
        (tmp_path / "nothing", "there is no such folder; make it first"),
        (source, "it is not empty; its files would be hidden"),
        (source / "00.png", "it is not a folder"),
        (root / "packs", "it lies inside the store"),
    ):
        done = cli("mount", root, place)
        assert (done.code, done.sentence()) == (12, f"{place}: {why}")
    for place in (source, tmp_path / "nothing"):
        done = cli("umount", place)
        assert (done.code, done.sentence()) == (12, f"{place}: nothing is mounted there")


def test_sources_that_are_not_there(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    for name in ("import", "verify"):
        done = cli(name, source, tmp_path / "nothing", root)
        assert done.code == 1
        assert done.sentence() == f"{tmp_path / 'nothing'}: No such file or directory"
    assert cli("stats", root, "--json").json()["files"] == 0


def test_the_store_and_other_files_are_apart(
    cli: Cli, root: Path, source: Path, tmp_path: Path
) -> None:
    for arguments in (
        ["import", tmp_path, root],
        ["import", f"{root}/packs", root],
        ["import", root, root],
        ["export", root, root / "out"],
        ["export", root, root],
    ):
        done = cli(*arguments)
        assert done.code == 2
        assert "must be apart" in done.sentence()
    assert cli("export", root, tmp_path).code == 0


def test_export_to_what_is_no_folder(cli: Cli, root: Path, source: Path) -> None:
    done = cli("export", root, source / "00.png")
    assert done.code == 1
    assert done.sentence() == f"{source / '00.png'}: File exists"
    cli("import", source, root)
    missing = cli("export", root, source.parent / "out", "in/00.png", "in/99.png")
    assert missing.code == 1
    assert "there is no 'in/99.png' in" in missing.sentence()
    assert not (source.parent / "out").exists()


def test_a_source_through_a_link(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert cli("import", f"{tmp_path}/link/", root, "--json").json()["files"] == 3
    assert cli("verify", f"{tmp_path}/link/", root).out == "3/3 identical\n"


def test_files_that_stay_staged(
    cli: Cli, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def give_up(store: Store) -> None:
        return

    async def rest(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Store, "drain", give_up)
    monkeypatch.setattr(Encoder, "run", rest)
    done = cli("import", source, root)
    assert done.code == 1
    assert "could not be encoded" in done.err
    assert "start the import again" in done.err


# Environment


def test_the_store_from_the_environment(
    cli: Cli, root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSMOUNT_STORE", str(root))
    assert cli("import", f"{source}/").code == 0
    assert cli("import", source, source / "00.png").code == 0
    assert cli("verify", f"{source}/").code == 1
    assert cli("ls").out.count("\n") == 4
    assert cli("ls", "in").out.count("\n") == 3
    assert cli("ls", root, "in") == cli("ls", "in")
    assert cli("export", tmp_path / "out").code == 0
    assert cli("export", tmp_path / "some", "in/01.png", "in/02.png").code == 0
    assert sorted(path.name for path in (tmp_path / "some/in").iterdir()) == ["01.png", "02.png"]
    assert cli("stats", "--json").json()["files"] == 6
    assert cli("check").code == 0
    other = tmp_path / "other"
    assert cli("init", other).code == 0
    assert cli("ls", other).out == ""
    assert cli("stats", other, "--json").json()["files"] == 0
    assert cli("import", source, other).code == 0
    assert cli("verify", source, other).code == 0
    assert cli("export", other, tmp_path / "out2").code == 0
    done = cli("mount", tmp_path / "nowhere")
    assert done.code in (12, 13)
    monkeypatch.setenv("FSMOUNT_STORE", str(tmp_path / "fresh"))
    assert cli("init").code == 0
    assert cli("stats").code == 0
    monkeypatch.setenv("FSMOUNT_STORE", str(tmp_path / "gone"))
    assert cli("ls").code == 10


def test_cache_size_from_the_environment(
    cli: Cli, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    open_store = Store.open

    def note(path: Path, **options: Any) -> Store:
        sizes.append(options["cache_bytes"])
        return open_store(path, **options)

    monkeypatch.setattr(Store, "open", note)
    monkeypatch.setenv("FSMOUNT_CACHE_SIZE", "3M")
    cli("verify", source, root)
    cli("verify", source, root, "--cache-size", "5K")
    assert sizes == [3 << 20, 5 << 10]
    monkeypatch.setenv("FSMOUNT_CACHE_SIZE", "plenty")
    done = cli("verify", source, root)
    assert done.code == 2
    assert "'plenty' is no size" in done.err


def test_the_log(cli: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_LOG", str(tmp_path / "log"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(screens(1)[0]))

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("fsmount.store.jobs.encode", fail)
    done = cli("import", tmp_path / "in", root)
    assert done.code == 3
    assert "internal error" in done.err
    assert "Traceback" not in done.err
    assert "a bug of ours" in (tmp_path / "log").read_text()


def on_a_terminal(*arguments: object, **variables: str) -> str:
    """What a command writes to the terminal it is started from."""
    try:
        controller, terminal = pty.openpty()
    except OSError:
        pytest.skip("no terminals here (/dev/pts is not mounted)")
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **variables}
    environment = {name: value for name, value in environment.items() if value}
    seen = b""
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as run:
        os.close(terminal)
        while select.select([controller], [], [], 60)[0]:
            try:
                data = os.read(controller, 65536)
            except OSError:  # the last writer has gone
                break
            seen += data
    os.close(controller)
    assert run.returncode == 0
    return seen.decode()


def test_progress_and_no_color(root: Path, source: Path) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*m")
    seen = on_a_terminal("import", source, root, NO_COLOR="")
    assert "importing" in seen
    assert "3/3 files" in seen
    assert colour.search(seen)
    plain = on_a_terminal("verify", source, root, NO_COLOR="1")
    assert "comparing" in plain
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)
    assert "importing" not in process("import", source, root).err


def test_interrupted(root: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 30)
    command = [sys.executable, "-m", "fsmount", "import", str(tmp_path / "in"), str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
        while not list((root / "staging").iterdir()):
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        assert run.stderr.read() == b""
    assert run.returncode == 130
    Lock(root / "lock").release()
    assert process("import", tmp_path / "in", root).code == 0
    assert process("verify", tmp_path / "in", root).out == "30/30 identical\n"


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
    store = Store.open(root)
    try:
        assert cli("check", "--repair", root).code == 11
    finally:
        store.close()


def test_interrupted_while_modules_load(tmp_path: Path) -> None:
    (tmp_path / "apsw.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "--version"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")
