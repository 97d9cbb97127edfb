"""How many background jobs run at a time: as many as the cores really take.

A program may see more cores than it gets, because other programs keep them busy. Then more jobs
than cores end no sooner, and cost more: each worker fills caches of its own, and follows the
pictures less closely. So the limit follows what the kernel says of the workers: for how long they
waited for a core although they could have run (*run delay*: ``/proc/PID/schedstat``,
Documentation/scheduler/sched-stats.rst of the kernel). Waiting for a disk does not count.

Of jobs that share c cores, n at a time, each waits for the share 1 - c / n of its time. So n times
the rest are the cores that they get.
"""

from __future__ import annotations

import math

# The limit is never smaller, unless fewer jobs than that are allowed.
_LEAST = 2
# So many jobs run at once until the first measurement, some hundredths of a second later.
_FIRST = 4
# Jobs for each core. Jobs also wait for the disk and for the process that asks for them.
_PER_CORE = 1.5
# More jobs are tried if those that run get this share of their time.
_FREE = 0.8


class Concurrency:
    """The limit of the number of background jobs at a time.

    limit : how many may run; it changes in :meth:`measured`.
    adapts : whether it may change.

    Parameters
    ----------
    most : int
        The limit never exceeds this number.
    is_chosen : bool
        Whether the user has chosen it. Then the limit is this number.
    """

    def __init__(self, most: int, *, is_chosen: bool = False) -> None:
        self.adapts = most > _LEAST and not is_chosen
        self.limit = min(most, _FIRST) if self.adapts else most
        self._most = most

    def measured(self, running: int, seconds: float, waited: float) -> bool:
        """Adapt the limit to a measurement. Return whether it changed.

        In `seconds`, `running` jobs waited for a core for `waited` seconds, all together.
        """
        before = self.limit
        if not self.adapts:
            return False
        share = 1 - waited / max(running * seconds, 1e-9)
        if share * _PER_CORE < 1:
            wanted = math.ceil(_PER_CORE * running * max(share, 0))
            self.limit = max(min(self.limit, wanted), _LEAST)
        elif share >= _FREE and running >= self.limit:
            self.limit = min(self._most, 2 * self.limit)
        return self.limit != before
