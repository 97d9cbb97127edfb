"""The names and arguments with which mount(8) runs this program. tests/e2e/test_fstab.py mounts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fsmount.cli import main
from tests.cli.commands import Cli


def called(*argv: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the program as a process with these arguments would. Returns its exit code."""
    monkeypatch.setattr(sys, "argv", list(argv))
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    "argv",
    [
        ("/sbin/mount.fsmount", "gone", "place"),
        ("/sbin/mount.fuse.fsmount", "gone", "place", "-s", "-o", "rw,user"),
        ("/usr/bin/fsmount", "/gone", "place", "-o", "rw,dev,suid"),
        ("python", "mount.fsmount", "-n", "gone", "place"),
    ],
)
def test_mount_finds_the_helper(
    argv: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called(*argv, monkeypatch=monkeypatch) == 32
    assert "gone is not an fsmount store" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [("fsmount", "/gone", "place"), ("fsmount", "mount.other")])
def test_other_command_lines_are_no_call_by_mount(
    argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(*argv, monkeypatch=monkeypatch) == 2
    assert "No such command" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("store",), ("store", "place", "-o", "nonsense")])
def test_a_wrong_command_line_is_1_for_mount(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli("mount.fsmount", *arguments).code == 1


def test_the_helper_is_not_in_the_list_of_commands(cli: Cli) -> None:
    assert "mount.fsmount" not in cli("--help").out
