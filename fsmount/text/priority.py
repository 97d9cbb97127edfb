"""The priority of a process that reads text: below all others."""

from __future__ import annotations

import os
from contextlib import suppress

_NICE = 19


def be_last(*, when_idle: bool) -> None:
    """Give this process, and those that it starts, the lowest priority.

    `when_idle`: they run only when no other process wants to; on a busy machine that may be never.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    if when_idle:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
