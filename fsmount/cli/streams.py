"""The standard streams, whatever the program was started with: closed, a full disk, a closed pipe.

Errors are as follows. What cannot be written to stderr is dropped: nobody could be told. What
cannot be written to stdout is told at the end, so that a command does its work first and its exit
code keeps its meaning. Only a pipe that nobody reads ends the command at once.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

# A closed stdout is opened for reading: writing to it goes on to fail.
_MODES = (os.O_RDONLY, os.O_RDONLY, os.O_RDWR)


def prepare() -> None:
    """Occupy the descriptors 0 to 2, and put streams on them that err as described.

    To be called before anything is opened: a store file, socket or pipe that got one of these
    numbers would receive what some library prints.
    """
    for descriptor, mode in enumerate(_MODES):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, mode), True)
    # Those that a program around this one has put there stay.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(1, "w", closefd=False), sys.stdout, "strict")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Remarks(2, "w", closefd=False), sys.stderr, "backslashreplace")


def finish() -> OSError | None:
    """Write what is left; what kept results from being written, or None."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # The end of the interpreter must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Results) else None


class _Results(io.FileIO):
    """Notes the first error instead of raising it, unless nobody reads any more."""

    failure: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.failure is None:
            try:
                return super().write(data)
            except BrokenPipeError:
                raise
            except OSError as error:
                self.failure = OSError(error.errno, error.strerror, "standard output")
        return len(data)


class _Remarks(io.FileIO):
    """Drops what cannot be written."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        with suppress(OSError):
            return super().write(data)
        return len(data)


def _text(raw: io.FileIO, before: io.TextIOBase | None, errors: str) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    at_once = raw.isatty() or isinstance(raw, _Remarks)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=at_once)
