"""Pressing the tab key in bash, zsh and fish completes commands, stores, paths and mountpoints."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from fsmount.cli.app import group
from fsmount.cli.common.shells import Bash
from fsmount.mount import mount_table
from fsmount.mount.mountpoint import FSTYPE
from fsmount.store.index import glance
from tests.cli.commands import process
from tests.support.paths import CHECKOUT

SHARE = CHECKOUT / "fsmount" / "share" / "completions"
SCRIPTS = {"bash": "bash/fsmount", "zsh": "zsh/_fsmount", "fish": "fish/fsmount.fish"}
# What an interactive shell reads without its configuration, and what makes it load our script.
STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {script}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -D; source {script}"),
    "fish": (
        ["fish", "--no-config", "--interactive"],
        # fish would also ask while somebody types.
        "set -g fish_autosuggestion_enabled 0; source {script}",
    ),
}
NAMES = ["2024-06-06T18:40:00+00:00.png", "2024-06-06T18:41:00+00:00.png", "a b,c $x.png"]
_SECONDS = 60


SHELLS = [
    pytest.param(
        shell,
        marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed"),
    )
    for shell in SCRIPTS
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a store, a folder, and a program fsmount that writes its arguments to a file."""
    home = tmp_path_factory.mktemp("home")
    desk = home / "desk"
    (desk / "late shots").mkdir(parents=True)
    for name in NAMES:
        (desk / name).write_bytes(b"no PNG")
    (desk / "late shots" / "one.png").write_bytes(b"no PNG")
    store = home / "shots.store"
    assert process("init", store).code == 0
    # 3: files that are no PNGs stay as they are.
    assert process("import", desk, store).code == 3
    shutil.rmtree(desk)
    (home / "screenshots").mkdir()
    program = home / "bin" / "fsmount"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'[ -z "$_FSMOUNT_COMPLETE" ] || PYTHONPATH={CHECKOUT} exec {sys.executable} -m fsmount\n'
        f"printf '%s\\n' \"$@\" > {home}/run.new && mv {home}/run.new {home}/run\n"
    )
    program.chmod(0o755)
    yield home


class Terminal:
    """An interactive shell in a terminal of its own."""

    def __init__(self, shell: str, home: Path) -> None:
        arguments, load = STARTS[shell]
        self.result = home / "run"
        self.shown = b""
        environment = {
            "HOME": str(home),
            "PATH": f"{home}/bin:{os.environ['PATH']}",
            "TERM": "xterm" if shell == "fish" else "dumb",
            "LC_ALL": "C.UTF-8",
        }
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(arguments[0], arguments, environment)
        # A program that runs is a sign that the shell has read the script.
        self.type(load.format(script=SHARE / SCRIPTS[shell]) + "\n")
        self.run("fsmount ready\r")

    def type(self, keys: str) -> None:
        """Send keys."""
        os.write(self._terminal, keys.encode())

    def run(self, keys: str) -> list[str]:
        """Send keys. Returns the arguments of the program that they start."""
        self.result.unlink(missing_ok=True)
        self.type(keys)
        until = time.monotonic() + _SECONDS
        while not self.result.exists():
            assert time.monotonic() < until, self.shown.decode(errors="replace")
            if select.select([self._terminal], [], [], 0.02)[0]:
                self.shown += os.read(self._terminal, 65536)
        return self.result.read_text().splitlines()

    def close(self) -> None:
        """End the shell."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._terminal)


# What somebody types before the tab key, and what the program gets.
TYPED = {
    "umo": ["umount"],
    "album cre": ["album", "create"],
    "import --delete-s": ["import", "--delete-source"],
    "ls sho": ["ls", "shots.store"],
    "stats ~/sho": ["stats", "{home}/shots.store"],
    "ls shots.store de": ["ls", "shots.store", "desk/"],
    "diff shots.store desk/2024-06-06T18:41": ["diff", "shots.store", f"desk/{NAMES[1]}"],
    "diff shots.store 'desk/2024-06-06T18:41": ["diff", "shots.store", f"desk/{NAMES[1]}"],
    "diff shots.store desk/a": ["diff", "shots.store", f"desk/{NAMES[2]}"],
    "export shots.store scr": ["export", "shots.store", "screenshots"],
    "export shots.store x desk/l": ["export", "shots.store", "x", "desk/late shots/"],
    "ls shots.store desk/late\\ shots/o": ["ls", "shots.store", "desk/late shots/one.png"],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab(shell: str, home: Path) -> None:
    terminal = Terminal(shell, home)
    try:
        found = {line: terminal.run(f"fsmount {line}\t\r") for line in TYPED}
        terminal.type(f"export FSMOUNT_STORE={home}/shots.store\r")
        with_variable = terminal.run("fsmount ls desk/a\t\r")
    finally:
        terminal.close()
    # zsh takes the slash after a folder of the disk away at the end of the line.
    found["export shots.store scr"][-1] = found["export shots.store scr"][-1].removesuffix("/")
    wanted = {line: [word.format(home=home) for word in words] for line, words in TYPED.items()}
    assert found == wanted
    assert with_variable == ["ls", f"desk/{NAMES[2]}"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_are_up_to_date(name: str, tmp_path: Path) -> None:
    writer = [sys.executable, str(CHECKOUT / "contrib" / "dev" / "completions"), str(tmp_path)]
    subprocess.run(writer, check=True, timeout=60)
    script = (SHARE / SCRIPTS[name]).read_text()
    assert (tmp_path / SCRIPTS[name]).read_text() == script, "run: contrib/dev/generate"
    assert process(_FSMOUNT_COMPLETE=f"{name}_source").out == script


def commands(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of all commands that take arguments."""
    if any(isinstance(parameter, click.Argument) for parameter in command.params):
        yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, *names, name)


def offered(*words: str) -> list[tuple[str, str]]:
    """Type and value of what there is for the last word."""
    shell = Bash(group, {}, "fsmount", "_FSMOUNT_COMPLETE")
    with kept_types(words[0]):
        found = shell.get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in found]


@contextmanager
def kept_types(name: str) -> Iterator[None]:
    """Give the arguments of a command their types again, which a completion changes for good."""
    command = group.get_command(click.Context(group), name)
    parameters = [] if command is None else command.params
    before = [parameter.type for parameter in parameters]
    try:
        yield
    finally:
        for parameter, kind in zip(parameters, before, strict=True):
            parameter.type = kind


@pytest.fixture
def mounted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount table with one mount of this program."""
    places = [(home / "screenshots", FSTYPE), (home / "other", "ext4")]
    found = [mount_table.Mounted(path, fstype, "x", "0:1") for path, fstype in places]
    monkeypatch.setattr(mount_table, "read", lambda _: iter(found))
    monkeypatch.setenv("HOME", str(home))


@pytest.mark.parametrize("names", list(commands(group)), ids=" ".join)
@pytest.mark.usefixtures("mounted")
def test_every_command_has_completion(
    names: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument that is a store offers stores, each other one something."""
    monkeypatch.chdir(home)
    found = offered(*names, "")
    assert found
    command = group.get_command(click.Context(group), names[0])
    assert command is not None
    metavar = command.collect_usage_pieces(click.Context(command))[-1]
    if metavar.startswith("STORE"):
        assert found == [("plain", "shots.store")]


@pytest.mark.usefixtures("mounted")
def test_mountpoints(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written as the user began to write them."""
    monkeypatch.chdir(home.parent)
    place = str(home / "screenshots")
    assert offered("umount", "") == offered("umount", "--now", "/") == [("plain", place)]
    assert offered("umount", "~/s") == [("plain", "~/screenshots")]
    assert offered("umount", home.name) == [("plain", f"{home.name}/screenshots")]
    assert offered("umount", "~/x") == offered("umount", "/nowhere") == []


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["mount", ""], "file"),
        (["mount", "shots.store", ""], "dir"),
        (["import", "x", ""], "file"),
        (["export", "shots.store", ""], "dir"),
        (["estimate", ""], "dir"),
        (["stats", "scr"], "dir"),
        (["album", "info", ""], "file"),
    ],
)
def test_files_and_folders_are_left_to_the_shell(
    words: list[str], kind: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert offered(*words) == [(kind, words[-1])]


def test_a_glance_leaves_no_trace(home: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        files = [home / "shots.store", *sorted((home / "shots.store").rglob("*"))]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    index = home / "shots.store" / "index.sqlite"
    before = state()
    assert glance(index, b"", b"", 9) == [(b"desk", True)]
    assert glance(index, b"desk", b"2024", 9) == [(name.encode(), False) for name in NAMES[:2]]
    assert glance(index, b"desk", b"", 1) == [(NAMES[0].encode(), False)]
    assert glance(index, b"nowhere", b"", 9) == []
    assert state() == before


@pytest.mark.parametrize("damage", ["gone", "no store", "garbage", "folder"])
def test_errors_are_silent(damage: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert process("init", store).code == 0
    if damage == "gone":
        shutil.rmtree(store)
    elif damage == "no store":
        (store / "fsmount.json").unlink()
    else:
        (store / "index.sqlite").unlink()
        if damage == "garbage":
            (store / "index.sqlite").write_bytes(b"no database" * 1000)
        else:
            (store / "index.sqlite").mkdir()
    before = sorted(tmp_path.rglob("*"))
    line = f"fsmount ls {store} x"
    done = process(_FSMOUNT_COMPLETE="bash_complete", COMP_WORDS=line)
    assert (done.out.strip(), done.err, done.code) == ("", "", 0)
    assert sorted(tmp_path.rglob("*")) == before
