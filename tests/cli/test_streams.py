"""Commands whose standard streams are closed, full, or have no reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import process
from tests.cli.test_errors import FUTURE
from tests.support.paths import CHECKOUT

ALL_CLOSED = "<&- >&- 2>&-"


def shell(how: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, with redirections or a pipe (`how`). Returns the result."""
    command = f'set -o pipefail; "{sys.executable}" -m fsmount "$@" {how}'
    done = subprocess.run(
        ["bash", "-c", command, "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


def all_commands(root: Path, source: Path, tmp_path: Path) -> list[list[object]]:
    """All commands that need no mount, in an order in which each succeeds."""
    return [
        ["init", tmp_path / "second"],
        ["import", source, root],
        ["export", root, tmp_path / "out"],
        ["verify", source, root],
        ["ls", root],
        ["ls", root, "--json"],
        ["ls", root, "-R"],
        ["cat", root, "in/00.png"],
        ["runs", root],
        ["diff", root, "in/01.png"],
        ["stats", root],
        ["check", root],
        ["backup", root, tmp_path / "backup"],
        ["copy", root, tmp_path / "second"],
        ["repack", root],
        ["--help"],
        ["--version"],
    ]


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">&-", 1, "fsmount: standard output: Bad file descriptor\n"),
        (">/dev/full", 1, "fsmount: standard output: No space left on device\n"),
        ("<&- >&- 2>&-", 1, ""),
    ],
)
def test_every_command(
    root: Path, source: Path, tmp_path: Path, how: str, code: int, told: str
) -> None:
    for command in all_commands(root, source, tmp_path):
        done = shell(how, *command)
        assert (command[0], done.returncode, done.stderr) == (command[0], code, told)
    # Every command did its work.
    assert process("verify", source, root).out == "3/3 identical\n"
    assert len(list((tmp_path / "out" / "in").iterdir())) == 3
    assert json.loads(process("stats", tmp_path / "second", "--json").out)["files"] == 3


@pytest.mark.parametrize("how", [">&-", "2>&-", ALL_CLOSED, ">/dev/full", "2>/dev/full"])
def test_errors_keep_their_exit_codes(root: Path, tmp_path: Path, how: str) -> None:
    assert shell(how, "ls", tmp_path / "nothing").returncode == 10
    assert shell(how, "umount", tmp_path).returncode == 12
    assert shell(how, "nonsense").returncode == 2
    (root / "packs" / "00000001.zip").unlink(missing_ok=True)
    (root / "fsmount.json").write_bytes(FUTURE)
    assert shell(how, "stats", root).returncode == 30


@pytest.mark.parametrize("how", [">&-", "2>&-", ALL_CLOSED, ">/dev/full"])
def test_damage_is_told_by_the_exit_code(root: Path, source: Path, how: str) -> None:
    process("import", source, root)
    for pack in (root / "packs").glob("*.zip"):
        pack.write_bytes(b"")
    assert shell(how, "check", root).returncode == 20


def test_a_pipe_that_nobody_reads(root: Path, source: Path) -> None:
    process("import", source, root)
    for command in (
        ["ls", root],
        ["ls", root, "--json"],
        ["cat", root, "in/00.png"],
        ["stats", root],
        ["--help"],
    ):
        # The reader closes the pipe before the command starts, so the timing does not matter.
        receiver, sender = os.pipe()
        os.close(receiver)
        done = subprocess.run(
            [sys.executable, "-m", "fsmount", *map(str, command)],
            stdout=sender,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
        )
        os.close(sender)
        assert (done.returncode, done.stderr) == (1, "")


def test_names_that_nobody_reads(root: Path, source: Path) -> None:
    """The import goes on, and lists no file as a problem."""
    done = shell("| true", "import", "-v", source, root)
    assert (done.returncode, done.stderr) == (1, "")
    assert process("verify", source, root).out == "3/3 identical\n"


def test_remarks_that_nobody_reads(root: Path, source: Path, tmp_path: Path) -> None:
    """The command goes on if it cannot write a warning."""
    (source / "gone").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    receiver, sender = os.pipe()
    os.close(receiver)
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "import", str(source), str(root)],
        stdout=subprocess.PIPE,
        stderr=sender,
        text=True,
        timeout=100,
        check=False,
    )
    os.close(sender)
    assert done.returncode in (0, 3)
    assert (tmp_path / "in").name in process("ls", root).out


def test_no_file_of_a_store_gets_a_standard_number(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from fsmount.cli import main\n"
        "from fsmount.store.files import StoreFiles\n"
        "def stats(self):\n"
        "    with open(sys.argv[-1] + '.seen', 'w') as out:\n"
        "        for number in range(3):\n"
        "            inherited = os.get_inheritable(number)\n"
        "            print(os.readlink(f'/proc/self/fd/{number}'), inherited, file=out)\n"
        "    os._exit(0)\n"
        "StoreFiles.stats = stats\n"
        "main()\n"
    )
    command = f'exec "{sys.executable}" "$@" {ALL_CLOSED}'
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run(
        ["bash", "-c", command, "bash", str(script), "stats", str(root)],
        check=True,
        env=environment,
    )
    seen = Path(f"{root}.seen").read_text().splitlines()
    assert len(seen) == 3
    # libffi opens itself while Python 3.14 starts, before any line of ours.
    assert [line for line in seen if line != "/dev/null True" and "/libffi.so" not in line] == []
