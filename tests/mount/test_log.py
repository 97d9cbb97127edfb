"""The form of the log on stderr: for people, and for the journal of systemd."""

from __future__ import annotations

import os
import subprocess
import sys

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
