"""Where a passphrase comes from, if nobody types it: a file, or a command.

It is never an argument or a variable, which other programs could read.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from fsmount.errors import KeyRefused, UsageError

COMMAND = "FSMOUNT_PASSCOMMAND"


def from_file(path: Path) -> str:
    """Return the first line of a file. Raises OSError and :class:`UsageError`."""
    return _first_line(path.read_bytes(), str(path))


def from_command() -> str | None:
    """Return the first line that the command in FSMOUNT_PASSCOMMAND prints.

    None if the variable is not set. No shell runs it. Raises :class:`KeyRefused` if it fails, and
    :class:`UsageError`.
    """
    text = os.environ.get(COMMAND)
    if not text:
        return None
    try:
        done = subprocess.run(shlex.split(text), stdout=subprocess.PIPE, check=True)
    except (OSError, ValueError) as error:
        raise KeyRefused(f"{COMMAND}={text!r}", reason=f"it does not run ({error})") from error
    except subprocess.CalledProcessError as error:
        why = f"it ended with exit code {error.returncode}"
        raise KeyRefused(f"{COMMAND}={text!r}", reason=why) from error
    return _first_line(done.stdout, COMMAND)


def _first_line(data: bytes, where: str) -> str:
    line = data.split(b"\n", maxsplit=1)[0].removesuffix(b"\r")
    if not line:
        raise UsageError(f"{where} gives no passphrase: its first line is empty")
    return os.fsdecode(line)
