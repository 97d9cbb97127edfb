"""How commands use their environment: variables, the log, the terminal, signals."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from fsmount.store import store as store_module
from fsmount.store.lock import Lock
from fsmount.store.packs.supply import Supply
from fsmount.store.read_store import ReadStore
from fsmount.store.store import OpenedReadStore
from fsmount.work.workers import Workers
from tests.cli.commands import Cli, process
from tests.support.frames import png, screens
from tests.support.trees import make_pictures


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
    running = OpenedReadStore.running

    def note(
        opened: OpenedReadStore, *, cache_bytes: int, packs: Supply | None
    ) -> AbstractAsyncContextManager[ReadStore]:
        sizes.append(cache_bytes)
        return running(opened, cache_bytes=cache_bytes, packs=packs)

    monkeypatch.setattr(OpenedReadStore, "running", note)
    monkeypatch.setenv("FSMOUNT_CACHE_SIZE", "3M")
    cli("verify", source, root)
    cli("verify", source, root, "--cache-size", "5K")
    assert sizes == [3 << 20, 5 << 10]
    monkeypatch.setenv("FSMOUNT_CACHE_SIZE", "plenty")
    done = cli("verify", source, root)
    assert done.code == 2
    assert "'plenty' is not a size" in done.err


def test_jobs(cli: Cli, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    class Counted(Workers):
        def __init__(self, count: int, **settings: Any) -> None:
            super().__init__(count, **settings)
            counts.append(self.limit)

    monkeypatch.setattr(store_module, "Workers", Counted)
    monkeypatch.setenv("FSMOUNT_JOBS", "7")
    assert not cli("import", f"{source}/", root).code
    assert not cli("check", root, "--full", "--jobs", "6").code
    assert not cli("verify", f"{source}/", root, "-j", "5").code
    assert counts == [7, 6, 5]
    for number in ("0", "many"):
        done = cli("verify", f"{source}/", root, "--jobs", number)
        assert done.code == 2
        monkeypatch.setenv("FSMOUNT_JOBS", number)
        done = cli("check", root, "--full")
        assert (done.code, number in done.err) == (2, True)


def test_the_log(cli: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_LOG", str(tmp_path / "log"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(screens(1)[0]))

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("fsmount.store.frames.jobs.encode", fail)
    done = cli("import", tmp_path / "in", root)
    assert done.code == 3
    assert "internal error" in done.err
    assert "Traceback" not in done.err
    assert "a bug of ours" in (tmp_path / "log").read_text()


def on_a_terminal(*arguments: object, code: int = 0, **variables: str) -> str:
    """Run a command on a new terminal. Asserts that it exits with `code`. Returns its output."""
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
            except OSError:  # the last writer closed the terminal
                break
            seen += data
    os.close(controller)
    assert run.returncode == code, seen
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
    make_pictures(tmp_path / "in", 150)
    command = [sys.executable, "-m", "fsmount", "import", str(tmp_path / "in"), str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
        while not sum(path.stat().st_size for path in (root / "packs").glob("*.zip")):
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        told = run.stderr.read().decode()
    assert re.fullmatch(
        r"fsmount: stopped after \d+/150 files\. What was imported stays in the store\."
        r" To go on, run the import again\.\n",
        told,
    )
    assert run.returncode == 130
    Lock(root / "lock").release()
    assert process("import", tmp_path / "in", root).code == 0
    assert process("verify", tmp_path / "in", root).out == "150/150 identical\n"


@pytest.mark.parametrize(
    ("command", "patched", "told"),
    [
        (
            ["check", "--full", "STORE"],
            "fsmount.cli.check.check_contents",
            "stopped after 0/3 objects. Nothing was changed. The next check begins anew.",
        ),
        (
            ["repack", "--dry-run", "STORE"],
            "fsmount.cli.repack.forecast",
            "stopped after 0 objects. Nothing was changed.",
        ),
        (
            ["repack", "--quiet", "STORE"],
            "fsmount.store.writable_store.WritableStore.repack",
            "stopped after 0/3 objects. What is done stays. To go on, run the repack again.",
        ),
        (
            ["verify", "SOURCE", "STORE"],
            "fsmount.store.transfer.verifying.Verifier.verify",
            "stopped after 0/3 files. Nothing was changed. The next verify begins anew.",
        ),
        (
            ["export", "STORE", "DEST"],
            "fsmount.store.transfer.exporting.Exporter.export",
            "stopped after 0/3 files. What was exported stays. To go on, run the export again.",
        ),
        (
            ["estimate", "SOURCE"],
            "fsmount.cli.estimate.estimate",
            "stopped after 0 pictures. There is no result; nothing was written. A smaller --seconds"
            " takes less time.",
        ),
        (["stats", "STORE"], "fsmount.store.files.StoreFiles.stats", ""),
    ],
)
def test_what_an_interrupted_command_tells(
    cli: Cli,
    root: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    patched: str,
    told: str,
) -> None:
    assert cli("import", source, root).code == 0

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(patched, interrupt)
    places = {"STORE": root, "SOURCE": source, "DEST": tmp_path / "out"}
    done = cli(*(places.get(argument, argument) for argument in command))
    assert (done.code, done.out) == (130, "")
    assert done.err.strip() == (f"fsmount: {told}" if told else "")


def test_progress_of_objects(root: Path, source: Path) -> None:
    process("import", source, root)
    seen = on_a_terminal("check", "--full", root)
    assert "3/3 objects" in seen
    assert re.search(r"\d:\d\d:\d\d", seen)  # the time left
    seen = on_a_terminal("estimate", source, "--seconds", "5")
    assert "sampling" in seen
    assert "3 pictures" in seen


@pytest.mark.parametrize("columns", ["40", "80"])
def test_narrow_terminals(root: Path, source: Path, columns: str) -> None:
    for command in (["import", source, root], ["ls", root, "in"], ["check", "--full", root]):
        on_a_terminal(*command, COLUMNS=columns)


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
