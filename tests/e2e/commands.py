"""Commands in processes of their own, and the process that serves a mount."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.measure import descendants


def fsmount(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    environment = {**os.environ, **variables}
    # Another test may have mounts with names of any bytes.
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
        env=environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def well(*arguments: object, **variables: str) -> str:
    """Run a command. Asserts that it succeeds and prints nothing on stderr. Returns its stdout."""
    done = fsmount(*arguments, **variables)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refused(code: int, *arguments: object, **variables: str) -> str:
    """Run a command. Asserts that it fails with `code` and one sentence. Returns the sentence."""
    done = fsmount(*arguments, **variables)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("fsmount: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("fsmount: ").strip()


class Server:
    """The process that serves a mount."""

    def __init__(self, place: Path) -> None:
        self.pid = int(os.getxattr(place, "user.fsmount.pid"))
        self._fd = os.pidfd_open(self.pid)

    def ended(self, seconds: float) -> bool:
        """Whether the process ends within the given time."""
        return bool(select.select([self._fd], [], [], seconds)[0])

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """Stop all worker processes and their template, so that nothing is encoded."""
        done = threading.Event()

        def suspend() -> None:
            while True:
                for pid in self._workers():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                if done.wait(0.005):
                    return

        thread = threading.Thread(target=suspend)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            for pid in self._workers():
                os.kill(pid, signal.SIGCONT)

    def _workers(self) -> Iterator[int]:
        """The template and its workers, once it runs its own program: not while we start it."""
        for pid in descendants(self.pid):
            with suppress(OSError):
                if b"template_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    yield pid

    def kill(self, number: signal.Signals) -> None:
        """Send a signal and wait until the process ends."""
        os.kill(self.pid, number)
        assert self.ended(30)
