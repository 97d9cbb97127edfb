"""Names with control characters: quoted on terminals, unchanged in pipes, exact in JSON."""

from __future__ import annotations

import ast
import json
import logging
import os
import runpy
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

import fsmount
from fsmount.mount.log import log_to
from fsmount.quoting import quoted
from tests.cli.commands import Cli, process
from tests.cli.test_environment import on_a_terminal
from tests.support.packs import flip

PACKAGE = Path(fsmount.__file__).parent
# Each name would change how a terminal, or a reader, shows the output.
EVIL = [
    "title\x1b]0;OWNED\x07\x1b[2J",
    "line\nFORGED: all is well",
    "back\r\x1b[AFORGED",
    "\x9b2Jc1\x7f",
    "abc\u202egnp.exe",
    "two\u2028FORGED",
    "caf\udce9",
    "'quoted'$'\\n'",
    "[red]markup[b]",
]
# Strings that must not reach a terminal. No program of ours writes them to one.
HARM = ["\x1b]0;", "\x1b[2J", "\x1b[AF", "\nFORGED", "\rFORGED", "\x9b", "\x7f", "\u202e", "\u2028"]


@pytest.fixture(name="evil")
def evil_folder(tmp_path: Path, source: Path) -> Path:
    """Broken pictures with the names of EVIL. Commands report them, so they print the names."""
    broken = (source / "00.png").read_bytes()[:-20]
    folder = tmp_path / "evil"
    folder.mkdir()
    for name in EVIL:
        (folder / f"{name}.png").write_bytes(broken + os.fsencode(name))
    return folder


def harmless(text: str) -> None:
    for part in HARM:
        assert part not in text.replace("\r\n", "\n"), text
    text.encode()


def names_in(text: str) -> set[str]:
    """The names of EVIL that occur in a text unchanged."""
    return {name for name in EVIL if f"{name}.png" in text}


def quoted_in(text: str) -> set[str]:
    return {name for name in EVIL if quoted(f"{name}.png") in text.replace("\r\n", "\n")}


def test_ls(evil: Path, root: Path) -> None:
    assert process("import", f"{evil}/", root).code == 3
    shown = on_a_terminal("ls", root)
    harmless(shown)
    assert quoted_in(shown) == set(EVIL)
    assert len(shown.splitlines()) == 1 + len(EVIL)
    assert shown.splitlines()[0].split() == ["size", "stored", "kind", "depth", "time", "name"]
    assert "'caf'$'\\351''.png'" in shown
    piped = process("ls", root)
    assert piped.err == ""
    assert names_in(piped.out) == set(EVIL)
    rows = [json.loads(line) for line in process("ls", "--json", root).out.splitlines()]
    assert {row["name"] for row in rows} == {f"{name}.png" for name in EVIL}
    terminal = on_a_terminal("ls", "--json", root)
    assert {json.loads(line)["name"] for line in terminal.splitlines()} == {
        f"{name}.png" for name in EVIL
    }
    assert '"caf\\udce9.png"' in terminal


def test_import_and_verify_and_export(evil: Path, root: Path, tmp_path: Path) -> None:
    shown = on_a_terminal("import", f"{evil}/", root, code=3)
    harmless(shown)
    assert quoted_in(shown) == set(EVIL)
    again = tmp_path / "again"
    assert process("init", again).code == 0
    assert names_in(process("import", f"{evil}/", again).err) == set(EVIL)
    assert {
        path for path, _ in json.loads(process("import", "--json", evil, again).out)["raw"]
    } == {f"evil/{name}.png" for name in EVIL}
    other = tmp_path / "other"
    shutil.copytree(evil, other)
    for path in other.iterdir():
        path.write_bytes(b"other")
    shown = on_a_terminal("verify", f"{other}/", root, code=1)
    harmless(shown)
    assert len(shown.partition("differ:")[2].splitlines()) == 1 + len(EVIL)
    assert names_in(process("verify", f"{other}/", root).err) == set(EVIL)
    shown = on_a_terminal("export", root, other, code=3)
    harmless(shown)
    assert names_in(process("export", root, other).err) == set(EVIL)
    found = json.loads(process("export", "--json", root, other).out)["problems"]
    assert {path for path, _ in found} == {str(other / f"{name}.png") for name in EVIL}


def test_runs_and_diff(source: Path, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(source, folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{number} \x1b[2J\u202e\udcff.png")
    assert process("import", f"{folder}/", root).code == 0
    harmless(on_a_terminal("runs", root))
    assert "0 \x1b[2J\u202e\udcff.png" in process("runs", root).out
    found = json.loads(process("runs", "--json", root).out)
    assert found["runs"][0]["first"] == "0 \x1b[2J\u202e\udcff.png"
    name = "1 \x1b[2J\u202e\udcff.png"
    assert json.loads(process("diff", "--json", root, name).out)["path"] == name
    harmless(on_a_terminal("diff", root, "no \x1b[2J such", code=1))


def test_check_and_repair(evil: Path, root: Path, tmp_path: Path) -> None:
    process("import", f"{evil}/", root)
    pack = root / "packs" / "00000001.zip"
    for at in range(1000, pack.stat().st_size, 300):
        flip(pack, at)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shown = on_a_terminal("check", "--full", root, code=20)
    harmless(shown)
    assert quoted_in(shown)
    assert names_in(process("check", "--full", root).err) == quoted_in(shown)
    shown = on_a_terminal("check", "--repair", root, code=22)
    harmless(shown)
    assert "lost: '" in shown
    assert names_in(process("check", "--repair", copy).err)


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_errors(tmp_path: Path, name: str) -> None:
    """Each error is one line, and quotes the name so that a shell can read it."""
    place = tmp_path / name
    uses: list[tuple[list[object], int, str]] = [
        (["ls", place], 10, str(place)),
        (["import", place, place], 1, str(place)),
        (["mount", place, tmp_path], 10, str(place)),
        (["album", "info", place], 10, f"{place}.xml"),
    ]
    for arguments, code, path in uses:
        shown = on_a_terminal(*arguments, code=code)
        harmless(shown)
        assert shown.startswith("fsmount: ")
        assert shown.count("\n") == 1
        assert quoted(path) in shown
        assert path in process(*arguments).err
    for wrong in (["estimate", place], ["ls", "--cache-size", place], [name], [f"--{name}"]):
        harmless(on_a_terminal(*wrong, code=2))


def test_a_store_of_such_a_name(tmp_path: Path) -> None:
    place = tmp_path / EVIL[0]
    shown = on_a_terminal("init", place)
    harmless(shown)
    assert f"mount {quoted(str(place))} FOLDER" in shown
    other = tmp_path / EVIL[1]
    assert str(other) in process("init", other).out
    assert json.loads(process("init", "--json", tmp_path / "c\udce9").out)["store"] == str(
        tmp_path / "c\udce9"
    )


def test_a_name_that_the_stream_cannot_hold(tmp_path: Path) -> None:
    """In a locale other than UTF-8, a character that the locale lacks is printed as an escape."""
    done = process("ls", tmp_path / "…\udce9", PYTHONIOENCODING="latin-1")
    assert done.code == 10
    assert "/\\u2026\udce9 is not an fsmount store" in done.err


# The log


@pytest.fixture(name="log")
def log_file(tmp_path: Path) -> Iterator[Path]:
    logger = logging.getLogger()
    before, level = list(logger.handlers), logger.level
    log_to(str(tmp_path / "log"))
    yield tmp_path / "log"
    logger.setLevel(level)
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_a_name_makes_no_line_of_the_log(log: Path, name: str) -> None:
    logger = logging.getLogger("fsmount.test")
    forged = f"{name}\n2024-06-06 18:40:00,000 ERROR fsmount: the store is gone"
    logger.error("%s: %s", forged, OSError(5, "told so", forged))
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    harmless(log.read_text())
    try:
        raise OSError(5, forged)
    except OSError:
        logger.exception("%s failed", forged)
    harmless(log.read_text())
    marks = [line for line in log.read_text().splitlines() if not line.startswith("  ")]
    assert len(marks) == 2
    assert all(" ERROR fsmount.test: " in line for line in marks)


def test_the_script_that_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = runpy.run_path(str(PACKAGE.parent / "contrib" / "unpack.py"))["tell"]
    for terminal in (True, False):
        seen = Terminal() if terminal else StringIO()
        monkeypatch.setattr("sys.stdout", seen)
        for name in EVIL:
            tell(f"DAMAGED {name}.png: other bytes")
        monkeypatch.undo()
        if terminal:
            harmless(seen.getvalue())
            assert seen.getvalue().count("\n") == len(EVIL)
        else:
            assert names_in(seen.getvalue()) == set(EVIL)


# One function prints everything


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_all_is_printed_by_one_function() -> None:
    """`say` checks for terminals, so no other code may print, except the script in share/."""
    for path in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "share").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func)
                printing = function in ("print", "click.echo", "click.secho", "echo")
                assert not printing or path.name == "output.py", f"{path}:{node.lineno}"


def test_warnings_on_a_terminal_and_results_in_a_pipe(
    cli: Cli, root: Path, evil: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stream is checked for a terminal by itself."""

    seen = Terminal()
    monkeypatch.setattr("sys.stderr", seen)
    cli("import", evil, root)
    harmless(seen.getvalue())
    (evil / f"{EVIL[6]}.png").unlink()
    other = root.parent / "other"
    cli("init", other)
    cli("import", evil, other)
    assert names_in(cli("ls", other, "evil").out) == {*EVIL} - {EVIL[6]}
