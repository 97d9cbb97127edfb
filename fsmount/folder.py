"""A folder that is reached by a descriptor, whatever its name is by now.

A program keeps a store open for weeks, and somebody renames the store's folder meanwhile. A path
that the program took before would then mean nothing, or another store. A path below
``/proc/self/fd/N`` means the folder behind descriptor N for as long as that is open.

Worker processes inherit the descriptors of all folders under the same numbers
(:mod:`fsmount.work.workers`), so that such a path means the same in them.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
from contextlib import ExitStack
from pathlib import Path

_DESCRIPTORS = "/proc/self/fd"
_NUMBER = re.compile(rf"{_DESCRIPTORS}/(\d+)")
# Numbers for descriptors of folders, in turn: a path that is used too late should lead nowhere, and
# not to the next store. Above stdin, stdout and stderr, which a child process replaces.
_numbers = itertools.cycle(range(100, 1000))
_LOWEST = 3


class Folder:
    """An open folder. `path` leads to it for as long as it is open.

    `given` is the name that it was opened by.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder; raises OSError."""
        self.given = path
        with ExitStack() as undo:
            found = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.number = _duplicate(found)
                undo.callback(os.close, self.number)
            finally:
                os.close(found)
            self.path = Path(_DESCRIPTORS, str(self.number))
            self._first = self._last = self._name_at_first()
            undo.pop_all()
        self._is_open = True
        _folders[self.number] = self

    def _name_at_first(self) -> str:
        try:
            return self._now()
        except OSError as error:
            text = "fsmount needs /proc, which is not mounted here"
            raise OSError(errno.ENOSYS, text, str(self.given)) from error

    @property
    def name(self) -> str:
        """The name to show: the one it was opened by, or the present one if it was moved."""
        if self._is_open:
            self._last = self._now()
        return str(self.given) if self._last == self._first else self._last

    def close(self) -> None:
        """Close it. Messages that name `path` are still readable, until the number is reused."""
        try:
            self._last = self._now()
        finally:
            self._is_open = False
            os.close(self.number)

    def _now(self) -> str:
        return os.readlink(f"{_DESCRIPTORS}/{self.number}")

    @property
    def is_open(self) -> bool:
        """Whether `path` leads to it."""
        return self._is_open


def _duplicate(number: int) -> int:
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, next(_numbers))
    except OSError:
        # The process may have fewer descriptors.
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _LOWEST)


# By the number of the descriptor: the folder that has it, or had it last.
_folders: dict[int, Folder] = {}


def open_numbers() -> list[int]:
    """The descriptors of all folders that are open."""
    return [number for number, folder in _folders.items() if folder.is_open]


def readable(text: str) -> str:
    """A message with the names of folders in place of the paths that lead to them."""
    if _DESCRIPTORS not in text:
        return text
    return _NUMBER.sub(_name, text)


def _name(match: re.Match[str]) -> str:
    folder = _folders.get(int(match[1]))
    return match[0] if folder is None else folder.name
