"""The reference of the commands agrees with the program. Pages name files that exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fsmount.cli.app import group
from tests.support.paths import CHECKOUT

ROOT = CHECKOUT
PAGE = (ROOT / "docs" / "commands.md").read_text()
# CHANGELOG.md may name files of earlier versions.
PAGES = sorted(
    path
    for folder in ("", "docs", "contrib/suites", "contrib/templates")
    for path in (ROOT / folder).glob("*.md")
    if path.name != "CHANGELOG.md"
)
# The target of a link without its anchor, or a path of the repository that is marked as code.
NAMED = re.compile(r"\]\(([^)#\s]+)|`((?:\.ci|contrib|docs|fsmount|tests)/[\w./-]*)`")


def commands(around: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(around)
    for name in around.list_commands(context):
        command = around.get_command(context, name)
        assert command is not None
        yield before + name, command
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")


COMMANDS = list(commands(group))


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "contrib" / "commands")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == PAGE, "run: contrib/dev/generate"


def sections() -> dict[str, str]:
    """Heading -> text under it."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section() -> None:
    assert list(sections()) == [name for name, _ in COMMANDS]


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_option_is_there(name: str, command: click.Command) -> None:
    text = sections()[name]
    assert f"fsmount {name} [OPTIONS]" in text
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert parameter.make_metavar(click.Context(command)) in text
            continue
        assert isinstance(parameter, click.Option)
        assert parameter.help
        for spelling in parameter.opts:
            assert re.search(rf"[`, ]{spelling}\b", text)
    example = text[text.index("```sh\n") :]
    assert re.search(rf"^fsmount {name} ", example, re.MULTILINE)


def test_exit_codes_and_variables() -> None:
    for code in (0, 1, 2, 3, 10, 11, 12, 13, 20, 30):
        assert re.search(rf"\b{code} [a-zF]", PAGE)
    for variable in (
        "FSMOUNT_STORE",
        "FSMOUNT_CACHE_SIZE",
        "FSMOUNT_JOBS",
        "FSMOUNT_LOG",
        "NO_COLOR",
    ):
        assert variable in PAGE


def dead_paths(page: Path, text: str) -> list[str]:
    """Paths that `page` names and the repository does not have."""
    dead = []
    for target, path in NAMED.findall(text):
        if target.startswith(("http:", "https:")):
            continue
        named = page.parent / target if target else ROOT / path
        if not named.exists():
            dead.append(target or path)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_files_that_exist(page: Path) -> None:
    assert dead_paths(page, page.read_text()) == []


def test_a_dead_path_is_found() -> None:
    text = "[a](gone.md) [b](format.md#packs) [c](https://a.example/b) `tests/gone.py` `docs/`"
    assert dead_paths(ROOT / "docs" / "page.md", text) == ["gone.md", "tests/gone.py"]


def test_the_index_of_the_docs_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index


# -- functions that the tour names

LINKED = re.compile(r"\[`([\w.]+)`\]\((\.\./fsmount/[\w./]+\.py)\)")


def defined(path: Path) -> set[str]:
    """Names that a module defines: `f`, `C`, `C.method`, `C.attribute`, `module.f`."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        names |= {node.name, f"{path.stem}.{node.name}"}
        for inner in ast.walk(node) if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(f"{node.name}.{inner.name}")
            elif isinstance(inner, ast.AnnAssign):
                names.add(f"{node.name}.{ast.unparse(inner.target).removeprefix('self.')}")
            elif isinstance(inner, ast.Assign):
                targets = map(ast.unparse, inner.targets)
                names |= {f"{node.name}.{target.removeprefix('self.')}" for target in targets}
    return names


def unknown_functions(page: Path, text: str) -> list[str]:
    return [
        f"{name} in {path}"
        for name, path in LINKED.findall(text)
        if name not in defined((page.parent / path).resolve())
    ]


@pytest.mark.parametrize("name", ["tour.md", "architecture.md"])
def test_pages_name_functions_that_exist(name: str) -> None:
    page = ROOT / "docs" / name
    assert unknown_functions(page, page.read_text()) == []
    assert name != "tour.md" or len(LINKED.findall(page.read_text())) > 30


def test_an_unknown_function_is_found() -> None:
    text = "[`Writer.gone`](../fsmount/store/packs/writer.py) [`Lru`](../fsmount/lru.py)"
    found = unknown_functions(ROOT / "docs" / "page.md", text)
    assert found == ["Writer.gone in ../fsmount/store/packs/writer.py"]
