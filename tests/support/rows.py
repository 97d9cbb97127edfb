"""Rows for the index in tests: files, folders and objects."""

from __future__ import annotations

import stat

from fsmount.store.index import ROOT, Index, Inode, Object

FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def file(
    index: Index, name: bytes, folder: int = ROOT, *, staged: int | None = None, size: int = 0
) -> Inode:
    """Make a regular file with fixed owner and times."""
    return index.create(folder, name, mode=FILE, uid=1, gid=2, now_ns=200, staged=staged, size=size)


def folder(index: Index, name: bytes, inside: int = ROOT) -> Inode:
    """Make a folder with fixed owner and times."""
    return index.create(inside, name, mode=FOLDER, uid=1, gid=2, now_ns=200)


def an_object(number: int, **change: object) -> Object:
    """An object whose hash follows from its number; `change` replaces fields."""
    fields: dict[str, object] = {
        "kind": "key",
        "pack": 1,
        "offset": 0,
        "length": 10,
        "size": 100,
        "sha256": number.to_bytes(32, "big"),
        "depth": 0,
    }
    return Object(number, **{**fields, **change})  # type: ignore[arg-type]
