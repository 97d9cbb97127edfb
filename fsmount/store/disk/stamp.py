"""Tells whether a file outside of the store has changed since it was examined."""

from __future__ import annotations

import os

Stamp = tuple[int, int, int]
"""Inode, size in bytes and mtime in ns of a file."""


def stamp(info: os.stat_result) -> Stamp:
    """Return the inode, size and mtime of a file."""
    return info.st_ino, info.st_size, info.st_mtime_ns
