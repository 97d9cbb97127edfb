"""A folder that is reached by its descriptor, independent of its name.

A program keeps a store open for weeks, and meanwhile somebody may rename the store's folder. A path
that the program took before would then lead nowhere, or to another store. A path below
``/proc/self/fd/N`` leads to the folder of descriptor N as long as that descriptor is open.

Worker processes get the descriptors of all open folders under the same numbers
(:mod:`fsmount.work.template`), so such a path leads to the same folder in them.
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
# Descriptors of folders get these numbers in a cycle: a path that is used too late should lead
# nowhere, and not to the next store. The fallback avoids stdin, stdout and stderr, which a child
# process replaces.
_numbers = itertools.cycle(range(100, 1000))
_LOWEST = 3


class Folder:
    """An open folder.

    ``path`` leads to it as long as it is open. ``given`` is the path that it was opened by.

    Raises
    ------
    OSError
        If the folder cannot be opened, or /proc is not mounted (ENOSYS).
    """

    def __init__(self, path: Path) -> None:
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
        """Return the folder's name; raise OSError with an explanation if /proc is missing."""
        try:
            return self._now()
        except OSError as error:
            text = "fsmount needs /proc, which is not mounted here"
            raise OSError(errno.ENOSYS, text, str(self.given)) from error

    @property
    def name(self) -> str:
        """The name for messages: the one it was opened by, or the present one if it was moved."""
        if self._is_open:
            self._last = self._now()
        return str(self.given) if self._last == self._first else self._last

    def close(self) -> None:
        """Close the folder. Messages that name ``path`` are readable until the number is reused."""
        try:
            self._last = self._now()
        finally:
            self._is_open = False
            os.close(self.number)

    def _now(self) -> str:
        """Return the folder's present name."""
        return os.readlink(f"{_DESCRIPTORS}/{self.number}")

    @property
    def is_open(self) -> bool:
        """Whether ``path`` leads to the folder."""
        return self._is_open


def _duplicate(number: int) -> int:
    """Return a copy of a descriptor under one of our numbers."""
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, next(_numbers))
    except OSError:
        # The limit of the process may be below our numbers.
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _LOWEST)


# Number of a descriptor -> the folder that has it, or had it last.
_folders: dict[int, Folder] = {}


def open_numbers() -> list[int]:
    """Return the descriptors of all open folders."""
    return [number for number, folder in _folders.items() if folder.is_open]


def readable(text: str) -> str:
    """Return a message with the names of folders in place of the paths that lead to them."""
    if _DESCRIPTORS not in text:
        return text
    return _NUMBER.sub(_name, text)


def _name(match: re.Match[str]) -> str:
    """Return the name of the folder of a match."""
    folder = _folders.get(int(match[1]))
    return match[0] if folder is None else folder.name
