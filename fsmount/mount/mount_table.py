"""The kernel's mount tables; see proc_pid_mountinfo(5) for the terms."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of a table. `device` names the filesystem (``0:51``), wherever it is mounted.

    `options` are those of the filesystem. `read_only`: writes are refused at this mountpoint.
    """

    mountpoint: Path
    fstype: str
    source: str
    device: str
    options: tuple[str, ...] = ()
    read_only: bool = False

    def number(self, name: str) -> int | None:
        """The value of an option that is a number, such as ``user_id``."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name and value.isdecimal():
                return int(value)
        return None


def read(path: Path) -> Iterator[Mounted]:
    """The mounts of a table, in the kernel's order: the last one at a path is on top.

    Lines and fields are split as bytes, at newlines and spaces only: a path may contain any other
    byte, and Python would also split at some characters (U+0085, U+00A0) made of such bytes.
    """
    for line in path.read_bytes().split(b"\n"):
        fields, _, rest = line.partition(b" - ")
        if not rest:
            continue
        _, _, device, _, mountpoint, here = fields.split(b" ")[:6]
        fstype, source, options = rest.split(b" ")[:3]
        yield Mounted(
            Path(_plain(mountpoint)),
            fstype.decode(),
            _plain(source),
            device.decode(),
            tuple(options.decode(errors="replace").split(",")),
            b"ro" in (*here.split(b","), *options.split(b",")),
        )


def _plain(field: bytes) -> str:
    """A field with its octal escapes decoded."""
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field))
