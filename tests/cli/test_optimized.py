"""The program works without docstrings and asserts, which `python -OO` leaves out."""

from __future__ import annotations

import ast
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmount
from fsmount.album.photos import Unfit
from fsmount.errors import FsmountError
from tests.cli.commands import Done, process
from tests.contract.test_docs import COMMANDS

PACKAGE = Path(fsmount.__file__).parent
OPTIMIZED = {"PYTHONOPTIMIZE": "2"}
TREE = {"PYTHONPATH": str(PACKAGE.parent)}

# Prints all help texts, and the message of every error, in one process.
ALL_WORDS = """
from tests.cli.test_optimized import words
print(words())
"""


def kinds(of: type[FsmountError] = FsmountError) -> Iterator[type[FsmountError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


KINDS = sorted(set(kinds()), key=lambda kind: kind.__name__)


def example(kind: type[FsmountError]) -> FsmountError:
    """An error of a class, with every field of its message filled in."""
    names = [name for _, name, _, _ in string.Formatter().parse(kind.message) if name]
    fields = {name: f"<{name}>" for name in names if name != "detail"}
    return kind("<detail>", **fields)


def words() -> str:
    helps = [
        f"{name}: {command.help}: {command.get_short_help_str()}" for name, command in COMMANDS
    ]
    return "\n".join(helps + [f"{kind.__name__}: {example(kind)}" for kind in KINDS])


def python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    environment = {**os.environ, **TREE}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=100, env=environment
    )
    return done.stdout.rstrip("\n")


def test_all_help_and_messages() -> None:
    assert Unfit in KINDS
    found = python("-OO", "-c", ALL_WORDS)
    assert found == words()
    assert "None" not in found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_own_message(kind: type[FsmountError]) -> None:
    """Each error class has a message of its own. It inherits none, and uses no docstring as one."""
    assert "message" in vars(kind)
    assert "<detail>" in str(example(kind))
    assert "{" not in (kind.__doc__ or "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["mount", "--help"],
        ["album", "create", "--help"],
        ["ls", "/nowhere/store"],
        ["mount", "/nowhere/store", "/nowhere/folder"],
        ["album", "info", "/nowhere/album"],
        ["umount", "/nowhere"],
        ["verify", "one"],
        ["import", "/nowhere/source", "/nowhere/store"],
        ["ls", "--cache-size", "plenty"],
    ],
    ids=" ".join,
)
def test_commands_say_the_same(arguments: list[str]) -> None:
    plain = process(*arguments, **TREE)
    assert plain.out or plain.err
    assert process(*arguments, **TREE, **OPTIMIZED) == plain


def test_a_store_works(source: Path, tmp_path: Path) -> None:
    """The commands need no assert to work."""
    root, out = tmp_path / "new", tmp_path / "out"
    (source / "note").write_text("no picture")

    def run(*arguments: object) -> Done:
        done = process(*arguments, **TREE, **OPTIMIZED)
        assert (done.code, done.err) == (0, "")
        return done

    run("init", root)
    run("import", f"{source}/", root)
    assert run("ls", root).out.count("\n") == 4
    assert run("verify", f"{source}/", root).out == "4/4 identical\n"
    assert run("check", "--full", root).out.endswith("no damage found\n")
    run("export", root, out)
    for path in source.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_asserts_only_tell_types(path: Path) -> None:
    """Asserts only inform the type checker: the only call inside one is `isinstance`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assert):
            text = ast.unparse(node.test)
            assert " is not None" in text or text.startswith("isinstance("), text
            for inner in ast.walk(node.test):
                assert not isinstance(inner, ast.NamedExpr | ast.Await), text
                called = isinstance(inner, ast.Call) and ast.unparse(inner.func) != "isinstance"
                assert not called, text
