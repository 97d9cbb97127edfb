"""A folder that behaves like FAT.

It refuses some characters, drops dots and spaces at the end of names, and ignores upper and lower
case.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESERVED = re.compile(r'[\x00-\x1f<>:"|?*\\\udc80-\udcff]')
_ONE = (
    *("open", "stat", "lstat", "mkdir", "unlink", "rmdir", "chmod", "utime", "chown", "mknod"),
    *("setxattr", "listxattr"),
)
_TWO = ("rename", "replace", "link")


def valid(name: str) -> bool:
    """Whether FAT keeps a name as it is."""
    return not RESERVED.search(name) and name == name.rstrip(". ") and len(name) <= 255


def make_fat(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Make `root` behave like FAT for all file calls of Python."""
    # The real calls. Other threads use the ones that are patched meanwhile.
    listdir, real_stat = os.listdir, os.stat
    lock = threading.RLock()

    def is_folder(path: str) -> bool:
        """Whether there is a folder at a path that is already translated."""
        try:
            return stat.S_ISDIR(real_stat(path).st_mode)
        except OSError:
            return False

    def meant(path: Any) -> Any:
        """The path of the file that FAT finds under a name."""
        if isinstance(path, int):
            return path
        text = os.fsdecode(path)
        if not text.startswith(f"{root}/"):
            return path
        here = str(root)
        for name in text.removeprefix(f"{root}/").split("/"):
            if RESERVED.search(name) or len(name) > 255:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), text)
            kept = name.rstrip(". ")
            if not kept:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), text)
            there = listdir(here) if is_folder(here) else []
            same = [one for one in there if one.casefold() == kept.casefold()]
            here = f"{here}/{same[0] if same else kept}"
        return here

    def wrap(call: Callable[..., Any], count: int) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            # A kernel looks a name up and makes it in one step. A patched call may make another
            # one, so the thread may take the lock again.
            with lock:
                paths = [meant(path) for path in arguments[:count]]
                return call(*paths, *arguments[count:], **more)

        return called

    for name in _ONE:
        monkeypatch.setattr(os, name, wrap(getattr(os, name), 1))
    for name in _TWO:
        monkeypatch.setattr(os, name, wrap(getattr(os, name), 2))
    monkeypatch.setattr(io, "open", wrap(io.open, 1))
