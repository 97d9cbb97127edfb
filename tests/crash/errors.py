"""Disk errors: the n-th call that changes the store fails, for every n.

In one run only that call fails, in another all calls from it on. The script continues after a
failed step; the tree must then be as before that step or as after it. Once the disk works again,
the store must encode all files. The harness then judges the store as after a crash.

``python -m tests.crash.errors [--every N] [--operations N]``
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw
import numpy as np
import trio

from fsmount.codec import _kernel, zstd
from fsmount.codec.images import jxl, webp
from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store.store import open_store
from tests.crash.alarms import alarms
from tests.crash.command import report, run_cases
from tests.crash.limits import small_limits
from tests.crash.planted import caught
from tests.crash.points import quiet
from tests.crash.scratch import fast
from tests.crash.script import Script, Spoilt
from tests.crash.traffic import Call, Tap, listen, tapped
from tests.crash.verdict import Rendering, judge, tree_of

T = TypeVar("T")
KINDS = ("EIO", "ENOSPC", "EROFS", "EINTR", "short")
_SQLITE = {
    "EIO": apsw.IOError,
    "ENOSPC": apsw.FullError,
    "EROFS": apsw.ReadOnlyError,
    "EINTR": apsw.IOError,
    "short": apsw.FullError,
}
# The calls that need space; a full disk fails no others.
_TAKES_ROOM = ("create", "pwrite", "allocate", "mkdir", "link", "fsync")


class Failing(Tap):
    """Fails call number `at`, with `forever` also all later ones, until :meth:`heal`."""

    def __init__(self, root: Path, at: int, kind: str, forever: bool) -> None:
        self._root = root
        self._at = at
        self._kind = kind
        self._forever = forever
        self.calls = 0
        self.failed = 0

    def heal(self) -> None:
        """Let all calls succeed from now on."""
        self._at = sys.maxsize

    def call(self, call: Call, do: Callable[[], T]) -> T:
        self.calls += 1
        due = self.calls >= self._at if self._forever else self.calls == self._at
        full = self._kind in ("ENOSPC", "short")
        if not due or (full and call.name not in _TAKES_ROOM):
            return do()
        self.failed += 1
        if self._kind == "short" and call.name == "pwrite":
            with (self._root / call.path).open("r+b") as file:
                file.seek(call.offset)
                file.write(call.data[: len(call.data) // 2])
        if call.sqlite:
            raise _SQLITE[self._kind](f"told to fail in {call.name}")
        code = errno.ENOSPC if self._kind == "short" else getattr(errno, self._kind)
        raise OSError(code, os.strerror(code), call.path)


def one(seed: int, operations: int, at: int, kind: str, forever: bool) -> tuple[int, str]:
    """Run once; returns (number of calls, failure text or ""). With `at` 0 no call fails."""
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        root = Path(scratch) / "store"
        with tapped(root, Tap()) as disk:
            config.make(root, disk)
        tap = Failing(root, at or sys.maxsize, kind, forever)
        script = Script(seed, operations)
        rendering = Rendering()
        script.look = lambda store: tree_of(store, rendering)
        try:
            trio.run(_run, root, tap, script)
        except Spoilt as error:
            return tap.calls, str(error)
        except BaseException as error:
            inner = error
            while isinstance(inner, BaseExceptionGroup):
                inner = inner.exceptions[0]
            if isinstance(inner, Spoilt):
                return tap.calls, str(inner)
            return tap.calls, f"raised {inner!r}"
        with tapped(root, Tap()) as disk:
            return tap.calls, judge(root, [script.now], rendering, disk)


async def _run(root: Path, tap: Failing, script: Script) -> None:
    with tapped(root, tap) as disk:
        try:
            opened = open_store(root, disk=disk)
        except (OSError, FsmountError):
            return
        try:
            async with opened.running(count=1) as store:
                await script.run(store)
                tap.heal()
                with trio.move_on_after(20) as late:
                    await store.drain()
                if late.cancelled_caught:
                    raise Spoilt("not everything was encoded when the disk worked again")
        finally:
            try:
                opened.close()
            except (OSError, FsmountError, apsw.Error):
                # SQLite swallows a failed checkpoint of its log, but apsw raises the error.
                tap.heal()


@functools.cache
def remember_codecs() -> None:
    """Encode everything once and cache the result, because all runs encode the same."""
    for module in (jxl, webp):
        vars(module)["encode"] = _remembering(module.encode)
    vars(zstd)["compress"] = _remembering(zstd.compress)
    for name in ("deflate", "deflate_delta"):
        vars(_kernel)[name] = _remembering(vars(_kernel)[name])


def _remembering(real: Callable[..., T]) -> Callable[..., T]:
    """Return a function that calls the `real` one once for equal arguments."""
    known: dict[tuple[object, ...], T] = {}

    def encode(*args: object) -> T:
        key = tuple(map(_contents, args))
        if key not in known:
            known[key] = real(*args)
        return known[key]

    return encode


def _contents(arg: object) -> object:
    """Return something to compare an argument by."""
    if isinstance(arg, np.ndarray):
        return arg.tobytes(), arg.shape, arg.dtype
    if isinstance(arg, zstd.Dictionary):
        return arg.content
    return bytes(arg) if isinstance(arg, bytearray | memoryview) else arg


def some(work: tuple[int, int, list[tuple[int, str, bool]]]) -> list[str]:
    """Run the cases of (seed, operations, cases); returns the failure texts."""
    seed, operations, cases = work
    quiet()
    listen()
    small_limits()
    remember_codecs()
    wrong = []
    for at, kind, forever in cases:
        _, why = one(seed, operations, at, kind, forever)
        if why:
            wrong.append(f"call {at} {kind} {'for good' if forever else 'once'}: {why}")
        if caught(wrong):
            break
    return wrong


def count(seed: int, operations: int) -> int:
    """Number of calls in a run without injected errors. Raises AssertionError if that run fails."""
    quiet()
    listen()
    small_limits()
    with alarms() as errors:
        calls, why = one(seed, operations, 0, "EIO", False)
    assert not why, why
    assert not errors, errors
    return calls


def _cases(calls: int) -> list[tuple[int, str, bool]]:
    return [(at, k, f) for at in range(1, calls + 1) for k in KINDS for f in (False, True)]


def main() -> int:
    """Run the command that the module describes."""
    calls, cases, wrong = run_cases(__doc__, count, _cases, some)
    return report(f"{calls} calls, {cases} injections", wrong)


if __name__ == "__main__":
    sys.exit(main())
