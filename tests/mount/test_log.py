"""The form of the log on stderr, and the thread that writes the log of a mount."""

from __future__ import annotations

import fcntl
import os
import re
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT

_PROGRAM = """
import logging
from fsmount.mount.log import log_to
log_to(None)
log = logging.getLogger("x")
log.info("one")
log.warning("two\\nlines")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("three")
log.critical("four")
"""


def logged(**variables: str) -> list[str]:
    """What a process logs to a pipe. `{pipe}` in a variable stands for device:inode of the pipe."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    pipe = f"{status.st_dev}:{status.st_ino}"
    filled = {name: value.format(pipe=pipe) for name, value in variables.items()}
    subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        stderr=writer,
        check=True,
        timeout=60,
        env=os.environ | filled,
    )
    os.close(writer)
    with open(reader) as lines:
        return lines.read().splitlines()


def test_the_journal_gets_priorities_and_no_time() -> None:
    lines = logged(JOURNAL_STREAM="{pipe}")
    assert lines[:3] == ["<6>x: one", "<4>x: two\\nlines", "<3>x: three"]
    assert lines[3] == "<3>  Traceback (most recent call last):"
    assert all(line.startswith("<3>  ") for line in lines[3:-1])
    assert lines[-1] == "<2>x: four"


def test_other_streams_get_the_time() -> None:
    """The variable is inherited by programs whose stderr is no journal."""
    for value in ("0:0", ""):
        first = logged(JOURNAL_STREAM=value)[0]
        assert first.endswith(" INFO x: one")
        assert first[:2] == "20"


# -- the log of a mount, which a thread writes

LINES = 2000
_MANY = f"""
import logging, os, sys, threading
from fsmount.mount import log
log._MOST_LINES, log._END_S, log._LOG_BYTES = 100_000, 3.0, 4 << 20
log.log_to(sys.argv[1], in_thread=True)
def work(name):
    for number in range({LINES // 4}):
        logging.getLogger(name).warning("%d", number)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
ENDS = {
    "end": "",
    "error": "1 / 0",
    "exit": "sys.exit(3)",
    "interrupt": "raise KeyboardInterrupt",
    "shutdown": "logging.shutdown(); logging.shutdown(); os._exit(0)",
    "fork": "pid = os.fork(); pid and os.waitpid(pid, 0); logging.shutdown(); os._exit(0)",
}


def run(program: str, log: Path, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(log)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=CHECKOUT
    )


def by_name(text: str) -> dict[str, list[int]]:
    """The numbers in the lines of each logger, in the order of the log."""
    found: dict[str, list[int]] = {}
    for name, number in re.findall(r"^2.* WARNING ([a-d]): (\d+)$", text, re.MULTILINE):
        found.setdefault(name, []).append(int(number))
    return found


ALL = {name: list(range(LINES // 4)) for name in "abcd"}


@pytest.mark.parametrize("end", ENDS)
def test_every_line_is_there_whatever_ends_the_process(tmp_path: Path, end: str) -> None:
    log = tmp_path / "log"
    run(f"{_MANY}\nlogging.info('last')\n{ENDS[end]}", log)
    text = log.read_text()
    assert by_name(text) == ALL
    assert text.endswith(" INFO root: last\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_full_log_is_renamed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(_MANY.replace("4 << 20", "70_000"), log)
    assert log.stat().st_size < 70_000
    older = tmp_path / "log.1"
    assert 69_000 < older.stat().st_size <= 70_000
    assert by_name(older.read_text() + log.read_text()) == ALL
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_on_a_full_disk(tmp_path: Path) -> None:
    done = run(_MANY, Path("/dev/full"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(name="reader")
def fifo(tmp_path: Path) -> Iterator[int]:
    """The end for reading of a FIFO tmp_path/"log" that takes a page."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    yield reader
    os.close(reader)


def test_a_process_ends_though_nothing_takes_its_log(tmp_path: Path, reader: int) -> None:
    assert reader
    began = time.monotonic()
    done = run(_MANY, tmp_path / "log")
    assert (done.returncode, done.stderr) == (0, "")
    assert 3 < time.monotonic() - began < 30


def test_lost_lines_are_counted(tmp_path: Path, reader: int) -> None:
    program = _MANY.replace("100_000", "200") + "\nprint('logged', flush=True); input()"
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as process:
        assert process.stdout is not None
        # No thread of the program waits for the log.
        assert process.stdout.readline() == "logged\n"
        text = b""
        while not (lost := re.search(rb" (\d+) lines of the log are lost", text)):
            assert select.select([reader], [], [], 20)[0]
            text += os.read(reader, 65536)
        process.communicate("\n")
    kept = by_name(text.decode())
    assert sum(map(len, kept.values())) + int(lost[1]) == LINES
    assert int(lost[1]) > LINES // 2
    assert all(numbers == sorted(set(numbers)) for numbers in kept.values())
