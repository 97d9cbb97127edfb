"""Variables of the environment from a file, for programs that pass on none, such as mount(8)."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from fsmount.errors import UsageError

_NAME = re.compile(r"(?:AWS|FSMOUNT)_[A-Z0-9_]+")


def use_credentials(file: Path) -> None:
    """Set the variables of a file for this process and its children.

    A line is ``AWS_SECRET_ACCESS_KEY=...``, empty, or a comment after ``#``. Raises
    :class:`UsageError` if others than its owner can read the file, or if it has other lines.
    """
    try:
        text = file.read_text(encoding="utf-8")
        mode = stat.S_IMODE(file.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of credentials {file}: {error}") from error
    if mode & 0o077:
        raise UsageError(f"others may read the file of credentials: chmod 600 {file}")
    for number, line in enumerate(text.splitlines(), 1):
        name, found, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not found or _NAME.fullmatch(name) is None:
            why = "it is neither AWS_...=VALUE nor FSMOUNT_...=VALUE"
            raise UsageError(f"{file}, line {number}: {why}")
        os.environ[name] = value.strip("\"'") if value[:1] in ("'", '"') else value
