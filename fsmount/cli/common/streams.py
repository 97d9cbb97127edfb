"""Standard streams that are closed, full, or without a reader.

A warning that cannot be written to stderr is dropped. A result that cannot be written to stdout is
reported at the end, so that the command does its work first and its exit code keeps its meaning.
Only a pipe without a reader ends the command at once.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

# A closed stdin or stdout is opened for reading only, so that writing to it still fails.
_MODES = (os.O_RDONLY, os.O_RDONLY, os.O_RDWR)


def prepare() -> None:
    """Occupy the descriptors 0 to 2 and replace the standard streams with ours.

    Call it before anything is opened. Otherwise a store file, socket or pipe may get one of these
    numbers, and receive what a library prints.
    """
    for descriptor, mode in enumerate(_MODES):
        try:
            os.fstat(descriptor)
        except OSError:
            # open(2) returns the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, mode), True)
    # A stream that the calling program replaced stays.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(1, "w", closefd=False), sys.stdout, "strict")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Remarks(2, "w", closefd=False), sys.stderr, "backslashreplace")


def finish() -> OSError | None:
    """Flush stdout.

    Returns
    -------
    OSError or None
        Why results could not be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python must not flush again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Results) else None


class _Results(io.FileIO):
    """Stores the first error instead of raising it, except that of a pipe without a reader.

    That is raised once: from 3.13 on, Python prints an error of its own last flush.
    """

    failure: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write, or store the error and report success. Raises the first BrokenPipeError."""
        if self.failure is None:
            try:
                return super().write(data)
            except BrokenPipeError as error:
                self.failure = error
                raise
            except OSError as error:
                self.failure = OSError(error.errno, error.strerror, "standard output")
        return len(data)


class _Remarks(io.FileIO):
    """Drops what cannot be written."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write, or report success."""
        with suppress(OSError):
            return super().write(data)
        return len(data)


def _text(raw: io.FileIO, before: io.TextIOBase | None, errors: str) -> io.TextIOWrapper:
    """Return a text stream over ``raw`` with the encoding of the old stream."""
    encoding = getattr(before, "encoding", None) or "utf-8"
    at_once = raw.isatty() or isinstance(raw, _Remarks)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=at_once)
