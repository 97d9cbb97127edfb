"""The kernel's tables of mounts, in the words of proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of a table. `device` names the filesystem (``0:51``), wherever it is mounted."""

    mountpoint: Path
    fstype: str
    source: str
    device: str
    options: tuple[str, ...] = ()

    def number(self, name: str) -> int | None:
        """The value of an option that is a number, such as ``user_id``."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name and value.isdecimal():
                return int(value)
        return None


def read(path: Path) -> Iterator[Mounted]:
    """The mounts of a table, in the kernel's order: of two at one path the later one is on top.

    Lines and fields are split as bytes, at newlines and spaces alone: a path may hold any other
    byte, and characters that Python takes for spaces (U+0085, U+00A0) consist of such bytes.
    """
    for line in path.read_bytes().split(b"\n"):
        fields, _, rest = line.partition(b" - ")
        if not rest:
            continue
        _, _, device, _, mountpoint = fields.split(b" ")[:5]
        fstype, source, options = rest.split(b" ")[:3]
        yield Mounted(
            Path(_plain(mountpoint)),
            fstype.decode(),
            _plain(source),
            device.decode(),
            tuple(options.decode(errors="replace").split(",")),
        )


def _plain(field: bytes) -> str:
    """A field with its octal escapes undone."""
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field))
