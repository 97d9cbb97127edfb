"""Signals and errors while a mount starts: afterwards the folder is mounted or free.

A process that starts or serves a mount gets a signal just before it runs the n-th line of the code
that starts mounts, for each n. All these processes hold a pipe, and report through it. So no test
depends on timing.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pyfuse3
import pytest

from fsmount.mount import daemon, log, session, signals, write_back
from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.unmount import free_if_dead, unmount
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.writable_store import WritableStore
from tests.e2e.mounts import missing

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

# The tests try every n-th line; 1 means all lines.
EVERY = int(os.environ.get("FSMOUNT_EVERY_LINE", "11"))
LIMIT_S = 120
CODE = {module.__file__ for module in (daemon, log, session, signals, write_back)}

SENT, READY = b"s", b"r"
# A function that runs in the process that starts or serves, just before one of its lines.
Act = Callable[[], None]


@pytest.fixture(name="root")
def store_folder(tmp_path: Path) -> Path:
    config.make(tmp_path / "store", Disk())
    return tmp_path / "store"


class Steps:
    """Calls `act` before the `at`-th line of the code that starts mounts, in this process alone."""

    def __init__(self, at: int, act: Act) -> None:
        self._left = at
        self._act = act
        self._pid = os.getpid()
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if os.getpid() != self._pid or frame.f_code.co_filename not in CODE:
            return None
        if event == "line":
            self._left -= 1
            if not self._left:
                self.stop()
                self._act()
        return self._trace

    def stop(self) -> None:
        """Stop counting lines."""
        sys.settrace(None)


class Start:
    """A mount that a process of its own starts, and the reports of the processes."""

    def __init__(self, root: Path, place: Path) -> None:
        self.place = place
        self.request = session.MountRequest(root, place)
        self._notes, self.note = os.pipe()
        self.serving: Callable[[], object] = lambda: None  # in the process that serves
        self.starting: Callable[[], object] = lambda: None  # in the process that starts it
        self.at_ready: Callable[[], object] = lambda: None
        self.foreground = False
        self.tells_server = True
        self.ends = False

    def sends(self, number: int) -> Act:
        """An act: the process reports it, and sends itself a signal."""

        def act() -> None:
            os.write(self.note, SENT)
            os.kill(os.getpid(), number)

        return act

    def run(self) -> bytes:
        """Start the mount. Returns the reports of the processes.

        Asserts that the folder is mounted and answers, or is free.
        """
        child = os.fork()
        if child == 0:
            self._child()
        os.close(self.note)
        status = None if self.foreground else os.waitpid(child, 0)[1]
        seen = b""
        while READY not in seen and (note := self._read()):
            seen += note
        # A process that was told to end has ended by now, or has reported that the mount is ready.
        was_told = self.ends or (SENT in seen and self.tells_server)
        is_served = READY in seen and not was_told and not self._has_note()
        if is_served:
            assert os.statvfs(self.place).f_namemax == 255
            assert int(os.getxattr(self.place, "user.fsmount.pid")) != os.getpid()
            unmount(self.place)
        while note := self._read():
            seen += note
        os.close(self._notes)
        if self.foreground:
            os.waitpid(child, 0)
        assert mounted_at(self.place) is None
        assert list(self.place.iterdir()) == []
        assert status != 0 or READY in seen
        return seen

    def _has_note(self) -> bool:
        return bool(select.select([self._notes], [], [], 0)[0])

    def _read(self) -> bytes:
        assert select.select([self._notes], [], [], LIMIT_S)[0]
        return os.read(self._notes, 100)

    def _child(self) -> NoReturn:
        code = 1
        try:
            os.close(self._notes)
            for stream in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            self._patch()
            if self.foreground:
                session.serve(self.request, self._ready)
            else:
                self.starting()
                session.serve_in_background(self.request)
            code = 0
        finally:
            os._exit(code)

    def _patch(self) -> None:
        """Start no worker: this takes a twentieth of the time. Report when the mount is ready."""

        async def cold(_: WritableStore) -> None:
            return

        patch = pytest.MonkeyPatch()
        patch.setattr(WritableStore, "warm", cold)
        run, ready = session._run, daemon._Report.ready

        def serve(*arguments: Any) -> None:
            self.serving()
            run(*arguments)

        def say_ready(report: daemon._Report) -> None:
            sys.settrace(None)
            ready(report)
            self._ready()

        patch.setattr(session, "_run", serve)
        patch.setattr(daemon._Report, "ready", say_ready)

    def _ready(self) -> None:
        sys.settrace(None)
        os.write(self.note, READY)
        self.at_ready()


def lines() -> Iterator[int]:
    """The lines to try. The caller stops after the last line that exists."""
    return itertools.count(1, EVERY)


def test_nothing_happens(root: Path, place: Path) -> None:
    assert Start(root, place).run() == READY


@pytest.mark.parametrize("foreground", [False, True])
def test_a_signal_to_the_serving_process(root: Path, place: Path, foreground: bool) -> None:
    for at, number in zip(lines(), itertools.cycle(signals.ENDING), strict=False):
        start = Start(root, place)
        start.foreground = foreground
        start.serving = partial(Steps, at, start.sends(number))
        seen = start.run()
        if SENT not in seen:
            break
    assert at > 40, "the lines are not counted"
    assert seen == READY


def test_the_serving_process_is_killed(root: Path, place: Path) -> None:
    """The process that started it frees the folder."""
    for at in lines():
        start = Start(root, place)
        start.serving = partial(Steps, at, start.sends(signal.SIGKILL))
        seen = start.run()
        assert seen in (SENT, READY)
        if seen == READY:
            break
    assert at > 40, "the lines are not counted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_starting_process(root: Path, place: Path, number: signal.Signals) -> None:
    for at in lines():
        start = Start(root, place)
        start.tells_server = False
        start.starting = partial(Steps, at, start.sends(number))
        if SENT not in start.run():
            break
    assert at > 20, "the lines are not counted"


def two_signals(at: int, second: Act) -> None:
    Steps(at, second)
    os.kill(os.getpid(), signal.SIGINT)


def test_signals_while_it_ends(root: Path, place: Path) -> None:
    """A second signal changes nothing: the process unmounts and closes the store."""
    for at in lines():
        start = Start(root, place)
        start.foreground = start.ends = True
        start.at_ready = partial(two_signals, at, start.sends(signal.SIGTERM))
        if SENT not in start.run():
            break
    assert at > 10, "the lines are not counted"


class Failing:
    """A function that raises the error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *_: object, **__: object) -> Any:
        raise self._error


ERRORS = [RuntimeError("x"), OSError(5, "x"), MemoryError(), KeyboardInterrupt(), SystemExit(3)]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (pyfuse3, "main"),
        (session, "_announce"),
        (session, "_end_on_signals"),
        (session, "_device"),
        (os, "statvfs"),
        (WritableStore, "run"),
        (daemon._Report, "ready"),
    ],
)
def test_an_error_while_it_starts(
    root: Path, place: Path, owner: Any, name: str, error: BaseException
) -> None:
    start = Start(root, place)
    start.serving = lambda: setattr(owner, name, Failing(error))
    seen = start.run()
    # If encoding fails, the files of the mount stay readable.
    assert seen == READY or name != "run" or not isinstance(error, Exception)


def test_signals_do_not_reach_the_program_that_mounts() -> None:
    command = ["grep", "SigBlk", "/proc/self/status"]
    with signals.held_back():
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    blocked = int(told.split()[1], 16)
    assert all(blocked >> (number - 1) & 1 for number in signals.ENDING)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(signals.ENDING)


def test_what_a_killed_program_left_is_freed(root: Path, place: Path) -> None:
    start = Start(root, place)
    start.foreground = True
    start.at_ready = lambda: os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        start._child()
    os.waitpid(child, 0)
    assert mounted_at(place) is not None, "a mount that was served stays, and is dead"
    with pytest.raises(OSError, match="not connected"):
        place.stat()
    free_if_dead(place)
    assert mounted_at(place) is None
    free_if_dead(place)
