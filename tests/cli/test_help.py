"""The help of the commands, and wrong usage."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fsmount.cli.app import group
from tests.cli.commands import Cli

COMMANDS = group.list_commands(click.Context(group))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert re.search(rf"Examples?:\n +fsmount {name}[ \n]", done.out)
    assert cli(name, "-h") == done


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(cli: Cli, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for page in ([], ["album"], ["trash"]):
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
