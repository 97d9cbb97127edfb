"""What the mounts of fsmount report about themselves, without waiting for one that hangs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

from fsmount.errors import BadMountpoint
from fsmount.mount.mount_table import Mounted
from fsmount.mount.status import DeadMountError, read_number

# A mount answers these questions from memory.
_ANSWER_S = 5.0


class State(StrEnum):
    """Whether a mount answers.

    SERVED: it does. DEAD: its process has ended. SILENT: it gave no answer in time. UNREACHABLE: it
    could not be asked; it belongs to another user, or another mount hides its mountpoint.
    """

    SERVED = "served"
    DEAD = "dead"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class MountStatus:
    """State of a mount.

    `pid`: the process that serves it. `staged`: number of files still to be encoded. Both are None
    unless the mount is served. `reason`: why it is unreachable, else "".
    """

    state: State
    pid: int | None = None
    staged: int | None = None
    reason: str = ""


def status(mounted: Mounted) -> MountStatus:
    """Ask a mount for its state. Waits at most `_ANSWER_S` seconds."""
    answers: list[MountStatus] = []
    # A thread that waits for a mount cannot be stopped. As a daemon it does not keep us alive.
    asking = threading.Thread(target=lambda: answers.append(_ask(mounted)), daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    return answers[0] if answers else MountStatus(State.SILENT)


def _ask(mounted: Mounted) -> MountStatus:
    try:
        pid, staged = read_number(mounted, "pid"), read_number(mounted, "staged")
    except DeadMountError:
        return MountStatus(State.DEAD)
    except BadMountpoint as error:
        return MountStatus(State.UNREACHABLE, reason=str(error.fields["reason"]))
    return MountStatus(State.SERVED, pid, staged)
