"""Jobs that tests run in worker processes.

They are apart from the tests, so a worker imports no more than the jobs.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fsmount.work.worker_process import LEFT_TO_PARENT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fsmount.codec.png.png import Picture
    from fsmount.work.sealed import Sealed
    from fsmount.work.shared_frames import SharedPicture


def add(a: int, b: int) -> int:
    """Answer a sum."""
    return a + b


def fail(error: Exception) -> None:
    """Raise an exception in the worker."""
    raise error


class OddError(Exception):
    """An error whose pickle cannot be read: the class takes two arguments, the pickle has one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly() -> None:
    """Raise an exception that the parent cannot read."""
    raise OddError(1, 2)


def unpicklable() -> Callable[[], None]:
    """Answer with something that cannot be sent."""
    return lambda: None


def die_once(marker: Path, how: str) -> int:
    """Die in the first attempt. The marker has a line for each attempt."""
    with marker.open("a") as file:
        file.write("attempt\n")
    if len(marker.read_text().splitlines()) == 1:
        die(how)
    return os.getpid()


def die(how: str) -> None:
    """End the worker: killed, by an exit, out of memory, or at its time limit."""
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
    """Write to an array, and answer a view of it, the bytes, and its height."""
    array[0, 0] = 1  # the worker gets its own copy
    return array.transpose(), data, array.shape[0]


def settings(variable: str) -> tuple[str | None, int]:
    """A variable of the environment of the worker, and its niceness."""
    return os.environ.get(variable), os.nice(0)


def ignored() -> list[bool]:
    """For each signal that is left to the parent, whether the worker ignores it."""
    return [signal.getsignal(number) == signal.SIG_IGN for number in LEFT_TO_PARENT]


def blocked() -> set[int]:
    """The signals that the worker blocks."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def pid() -> int:
    """The process id of the worker."""
    return os.getpid()


def get_shared(shared: SharedPicture) -> Picture:
    """Answer a picture that another process made."""
    return shared.get()


def make_sealed(data: bytes) -> Sealed | None:
    """Sealed memory with these bytes."""
    from fsmount.work.sealed import Sealed

    return Sealed.of([memoryview(data)], "x")


def read_sealed(memory: Sealed) -> tuple[bytes, bool]:
    """The bytes, and whether they are read-only."""
    view = memory.map("x")
    return bytes(view), view.readonly


def count_descriptors() -> int:
    """The number of open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def echo(text: str) -> str:
    """Answer the argument."""
    return text


def draw() -> list[object]:
    """Something from each source of chance that a job could use."""
    import random
    import tempfile
    import uuid

    import numpy as np

    with tempfile.NamedTemporaryFile() as file:
        return [random.random(), uuid.uuid4(), np.random.default_rng().random(), file.name]


def burn(seconds: float) -> None:
    """Take processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
