"""A screenshot loop: ``python -m tests.support.shooting FOLDER LOG HOW SECONDS``.

See :class:`Loop`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.support.frames import png, screens
from tests.support.paths import CHECKOUT


class Loop:
    """A process that writes a numbered PNG to a folder every `pause_s` seconds.

    `how`: "write" (open, write, close), "rename" (a temporary file, then a rename), or "inside"
    (as "write", by relative names from the folder as its working folder). The log has the name and
    SHA-256 of each shot whose writing did not fail. A shot that fails is not written again.
    """

    def __init__(self, folder: Path, log: Path, how: str, pause_s: float) -> None:
        module = [sys.executable, "-m", "tests.support.shooting"]
        command = [*module, str(folder), str(log), how, str(pause_s)]
        self._log = log
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def stop(self) -> dict[str, str]:
        """End the process. Returns name -> SHA-256 of all shots that it has written."""
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate(timeout=30)
        lines = self._log.read_text().splitlines()
        return dict(line.split() for line in lines if len(line) > 64)


def shots(folder: Path, log: Path, how: str, pause_s: float) -> None:
    """Write shots until killed."""
    frames = screens(20, seed=len(how))
    if how == "inside":
        os.chdir(folder)
        folder = Path()
    number = 0
    with log.open("a", buffering=1) as acknowledged:
        while True:
            frame = frames[number % len(frames)].copy()
            frame[0, :4, 0] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
            data = png(frame, level=1)
            path = folder / f"{how}-{number:06d}.png"
            scratch = path.with_suffix(".tmp") if how == "rename" else path
            number += 1
            try:
                # Unbuffered and in two parts, so that a reader may meet half a file.
                with scratch.open("wb", buffering=0) as file:
                    file.write(data[:1000])
                    file.write(data[1000:])
                scratch.rename(path)
            except OSError:
                pass
            else:
                acknowledged.write(f"{path.name} {hashlib.sha256(data).hexdigest()}\n")
            if number == 3:
                print("started", flush=True)
            time.sleep(pause_s)


if __name__ == "__main__":
    shots(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
