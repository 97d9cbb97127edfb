"""Public functions name the exceptions that they raise: ruff reads only sections "Raises" for it.

Help texts of commands are not looked at: whoever runs a command sees a message, not an exception.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmount

PACKAGE = Path(fsmount.__file__).parent
# `share` has the stand-alone decoder.
OUTSIDE = ("cli", "share")
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in OUTSIDE
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, around: str) -> Iterator[tuple[Function, str]]:
    """Public functions, each with all docstrings that say something about it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef) or child.name.startswith("_"):
            continue
        docs = around + (ast.get_docstring(child) or "")
        if isinstance(child, ast.ClassDef):
            yield from functions(child, docs)
        else:
            yield child, docs


def last_name(node: ast.expr) -> str:
    """The last name of an expression: of ``raise a.B(c)`` it is B."""
    if isinstance(node, ast.Call):
        node = node.func
    return ast.unparse(node).rpartition(".")[2]


def raised(node: ast.AST, caught: tuple[str, ...] = ()) -> Iterator[str]:
    """The classes that a function raises itself and does not catch."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            name = last_name(child.exc)
            # A name in small letters is a function that makes the exception, or a caught one.
            if name[:1].isupper() and name not in caught:
                yield name
        elif isinstance(child, ast.Try):
            types = [handler.type for handler in child.handlers if handler.type is not None]
            flat = [e for t in types for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
            inner = ast.Module(child.body, [])
            yield from raised(inner, (*caught, *map(last_name, flat)))
            outer = ast.Module([*child.orelse, *child.finalbody], [])
            for part in (*child.handlers, outer):
                yield from raised(part, caught)
        else:
            yield from raised(child, caught)


def missing(tree: ast.Module) -> list[str]:
    """Exceptions that no docstring names, as ``function: exception``."""
    return [
        f"{function.name}: {name}"
        for function, docs in functions(tree, ast.get_docstring(tree) or "")
        for name in raised(function)
        if name not in docs
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_names_what_is_raised(path: Path) -> None:
    assert missing(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n raise Damaged(1)",
        "def f():\n 'Raises OSError.'\n raise errors.Damaged",
        "class C:\n async def f(self):\n  if x:\n   raise Damaged",
        "def f():\n try:\n  g()\n except Damaged:\n  raise Damaged from None",
        "def f():\n try:\n  raise Damaged\n except OSError:\n  pass",
    ],
)
def test_a_missing_name_is_found(code: str) -> None:
    assert missing(ast.parse(code)) == ["f: Damaged"]


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n 'Raises Damaged.'\n raise Damaged",
        "class C:\n 'Methods raise Damaged.'\n def f(self):\n  raise Damaged",
        "def _f():\n raise Damaged",
        "def f():\n try:\n  raise Damaged\n except (OSError, Damaged):\n  pass",
        "def f():\n def g():\n  raise Damaged",
    ],
)
def test_a_named_or_caught_exception_is_no_fault(code: str) -> None:
    assert missing(ast.parse(code)) == []
