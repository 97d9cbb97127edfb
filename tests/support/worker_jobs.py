"""Jobs that tests run in worker processes.

They are apart from the tests, so a worker imports no more than the jobs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fsmount.work.worker_process import LEFT_TO_PARENT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fsmount.codec.png.png import Picture
    from fsmount.work.shared_frames import SharedPicture


def add(a: int, b: int) -> int:
    return a + b


def fail(error: Exception) -> None:
    raise error


class OddError(Exception):
    """An error whose pickle cannot be read: the class takes two arguments, the pickle has one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly() -> None:
    raise OddError(1, 2)


def unpicklable() -> Callable[[], None]:
    return lambda: None


def die_once(marker: Path, how: str) -> int:
    """Die in the first attempt. The marker has a line for each attempt."""
    with marker.open("a") as file:
        file.write("attempt\n")
    if len(marker.read_text().splitlines()) == 1:
        die(how)
    return os.getpid()


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(3)
    if how == "memory":
        bytearray(1 << 40)
    if how == "time":
        signal.pause()
    os._exit(3)


def rendezvous(fifo: Path, result: str) -> str:
    """Return when someone has opened the FIFO for reading."""
    with fifo.open("wb"):
        return result


def pair(array: npt.NDArray[np.uint8], data: bytes) -> tuple[npt.NDArray[np.uint8], bytes, int]:
    array[0, 0] = 1  # the worker gets its own copy
    return array.transpose(), data, array.shape[0]


def settings(variable: str) -> tuple[str | None, int]:
    return os.environ.get(variable), os.nice(0)


def ignored() -> list[bool]:
    return [signal.getsignal(number) == signal.SIG_IGN for number in LEFT_TO_PARENT]


def blocked() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def pid() -> int:
    return os.getpid()


def get_shared(shared: SharedPicture) -> Picture:
    return shared.get()


def echo(text: str) -> str:
    return text
