"""The man pages agree with the program, and programs that read man pages find no fault."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fsmount.cli.app import group
from tests.support.paths import CHECKOUT

SHARE = CHECKOUT / "fsmount" / "share" / "man"
PAGES = sorted(SHARE.glob("man*/*"))


def tree(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def commands(command: click.Command, name: str) -> Iterator[str]:
    """Names of the pages of a command and all commands below it."""
    yield name
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            assert inner is not None
            yield from commands(inner, f"{name}-{each}")


def test_the_pages_are_up_to_date(tmp_path: Path) -> None:
    """A page of a command that is gone is deleted."""
    (tmp_path / "man1").mkdir()
    (tmp_path / "man1" / "fsmount-gone.1").touch()
    writer = [sys.executable, str(CHECKOUT / "contrib" / "dev" / "manpages"), str(tmp_path)]
    subprocess.run(writer, check=True, timeout=60)
    assert tree(tmp_path) == tree(SHARE), "run: contrib/dev/generate"


def test_every_command_has_a_page() -> None:
    wanted = {f"{name}.1" for name in commands(group, "fsmount")}
    assert {path.name for path in PAGES if path.suffix == ".1"} == wanted
    other = {path.name for path in PAGES if path.suffix != ".1"}
    assert {"fsmount-format.5", "mount.fsmount.8"} <= other


def test_pages_name_pages_that_exist() -> None:
    names = {path.name for path in PAGES}
    # Pages of other packages that ours may name.
    others = {"mount.8", "fstab.5"}
    for path in PAGES:
        found = re.findall(r"^\.BR \\%(\S+) \((\d)\),?$", path.read_text(), re.M)
        assert found
        for name, section in found:
            assert f"{name}.{section}".replace("\\-", "-") in names | others, path.name


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_man_has_no_warning_and_shows_what_a_user_can_copy() -> None:
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", *PAGES],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown.stderr == ""
    text = re.sub(".\b", "", shown.stdout)
    assert "fsmount mount -o ro,allow_other /backup/shots.store /mnt\n" in text
    assert "fsmount import --delete-source ~/screenshots.old/ ~/shots.store\n" in text
    assert "as \\udc80 to \\udcff" in " ".join(text.split())
    # Each exit code has an item of its own.
    assert re.search(r"^ +14 +unmounted but still in use elsewhere$", text, re.M)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_no_fault() -> None:
    checked = subprocess.run(
        ["mandoc", "-Tlint", *PAGES], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.stdout + checked.stderr == ""


@pytest.mark.skipif(shutil.which("lexgrog") is None, reason="lexgrog (man-db) is not installed")
def test_whatis_gets_a_line_of_each_page() -> None:
    read = subprocess.run(
        ["lexgrog", *PAGES], capture_output=True, text=True, check=True, timeout=60
    )
    lines = read.stdout.splitlines()
    assert len(lines) == len(PAGES)
    for path, line in zip(PAGES, lines, strict=True):
        assert line.startswith(f'{path}: "{path.stem} - ')
