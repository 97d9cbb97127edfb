"""The folder beside an adopted folder that keeps the originals and the state of the adoption.

The state is a file of JSON lines. The first line names folder and store; each later line says that
a step begins or has ended. A line is forced to the disk before what it tells begins. The file is
also the lock: one process at a time adopts a folder. The kernel releases the lock of a process that
is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsmount.errors import AdoptLocked, FsmountError

SUFFIX = ".adopt"
_NAME = "state"
_FORMAT = 1
_ABOUT = "fsmount adopt keeps its state here. Run the same command again to go on."


@dataclass(frozen=True, slots=True)
class AdoptedFolder:
    """What is adopted: the folder, its store, and the numbers of the folder below the mount."""

    folder: Path
    store: Path
    device: int
    inode: int


def place(folder: Path) -> Path:
    """The folder that keeps the originals and the state of an adopted folder."""
    return folder.parent / f"{folder.name}{SUFFIX}"


def exists(root: Path) -> bool:
    """Whether there is a state in the folder `root`."""
    return (root / _NAME).is_file()


class State:
    """The state of one adoption, open and locked until :meth:`close`.

    `subject` is None until :meth:`begin`. `since_ns`: the time of the first mount, in ns since
    1970; None before it. `is_collected`: whether the store has all that programs wrote below.
    """

    def __init__(self, root: Path) -> None:
        """Open the state in the folder `root`. Raises AdoptLocked, FsmountError, OSError."""
        self._path = root / _NAME
        self.originals = root / "originals"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._fd).st_nlink:
                # The process that had the lock has finished, and removed the file.
                raise BlockingIOError
        except BlockingIOError as error:
            os.close(self._fd)
            raise AdoptLocked(root) from error
        self.subject: AdoptedFolder | None = None
        self.since_ns: int | None = None
        self.is_collected = False
        try:
            self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def _load(self) -> None:
        """Read all whole lines, and cut off a line that a kill or a power cut left half-written."""
        data = self._path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            os.ftruncate(self._fd, end)
        for line in data[:end].splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise FsmountError(f"{self._path} is not a state of fsmount adopt") from error

    def _take(self, line: dict[str, Any]) -> None:
        step = line["step"]
        if step == "begin":
            if line["format"] != _FORMAT:
                raise FsmountError(f"{self._path} was written by a newer fsmount; use that one")
            self.subject = AdoptedFolder(
                Path(line["folder"]), Path(line["store"]), line["device"], line["inode"]
            )
        elif step == "mount":
            self.since_ns = int(line["at_ns"])
        elif step == "collected":
            self.is_collected = True

    def begin(self, subject: AdoptedFolder) -> None:
        """Note what is adopted."""
        self._append(
            {
                "step": "begin",
                "about": _ABOUT,
                "format": _FORMAT,
                "folder": str(subject.folder),
                "store": str(subject.store),
                "device": subject.device,
                "inode": subject.inode,
            }
        )

    def mounts(self, at_ns: int) -> None:
        """Note that the store is about to be mounted for the first time, at `at_ns`."""
        self._append({"step": "mount", "at_ns": at_ns})

    def collected(self) -> None:
        """Note that nothing is left to copy into the mount."""
        self._append({"step": "collected"})

    def _append(self, line: dict[str, Any]) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")
        os.fsync(self._fd)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._take(line)

    def remove(self) -> None:
        """Remove the state and its folder. Raises OSError if originals are left."""
        if self.originals.exists():
            self.originals.rmdir()
        self._path.unlink()
        self._path.parent.rmdir()

    def close(self) -> None:
        """Release the lock."""
        os.close(self._fd)
