"""Notes all file calls below a folder that the thread that answers requests makes.

Calls of Python are seen: the functions of `os`, and opens. Calls of SQLite are not seen. Calls of
the index around its commits are not noted. Both may wait for the disk.
"""

from __future__ import annotations

import builtins
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

_INDEX = f"{os.sep}store{os.sep}index{os.sep}"
_OF_PATHS = (
    "open", "stat", "lstat", "statvfs", "access", "truncate", "unlink", "remove", "rename",
    "replace", "link", "symlink", "mkdir", "rmdir", "chmod", "utime", "listdir", "scandir",
    "getxattr", "listxattr",
)  # fmt: skip
_OF_FILES = (
    "read", "pread", "preadv", "write", "pwrite", "pwritev", "fstat", "fstatvfs", "fsync",
    "fdatasync", "ftruncate", "posix_fallocate", "lseek", "close",
)  # fmt: skip
_readlink = os.readlink


def path_of(what: object) -> str:
    """The path of a file that is given as a path or a descriptor."""
    if isinstance(what, int):
        try:
            return _readlink(f"/proc/self/fd/{what}")
        except OSError:
            return ""
    try:
        path = os.fsdecode(os.fspath(what))  # type: ignore[call-overload]
    except TypeError:
        return ""
    return re.sub(r"^/proc/self/fd/[0-9]+", lambda found: path_of(int(found[0][14:])), path)


def never_waits(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a call returns at once: it takes data from the kernel's memory, or nothing."""
    return name == "preadv" and len(args) > 3 and bool(args[3] & os.RWF_NOWAIT)


def seams() -> list[tuple[Any, str]]:
    """The file calls of Python: (module, name of a function whose first argument is a file)."""
    return [*((os, name) for name in (*_OF_PATHS, *_OF_FILES)), (builtins, "open"), (io, "open")]


def _is_of_index() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if _INDEX in frame.f_code.co_filename:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _where() -> str:
    """The place in fsmount that made the call."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "fsmount" in path.parts and "tests" not in path.parts:
            return f"{path.stem}.{frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


@contextmanager
def watched(root: Path) -> Iterator[list[str]]:
    """Yield a list of the calls for files below `root` on this thread, with their callers."""
    thread, seen = threading.get_ident(), list[str]()
    top = str(root.resolve())

    def seam(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if threading.get_ident() == thread and args and not never_waits(name, args):
                path = path_of(args[0])
                if path.startswith(top) and not _is_of_index():
                    seen.append(f"{name} {path[len(top) :]} by {_where()}")
            return real(*args, **named)

        return call

    with ExitStack() as stack:
        for owner, name in seams():
            wrapped = seam(getattr(owner, name), name)
            stack.enter_context(mock.patch.object(owner, name, wrapped))
        yield seen
