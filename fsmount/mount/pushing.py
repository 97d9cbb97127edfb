"""Pushes the store of a mount to a URL, from time to time and at a clean end.

A push is the command ``fsmount push`` in a process of its own, of low priority. It reads the store
beside the mount as any reader does, so whatever happens to it, the mount goes on. A failure is
logged once, and the next push comes at its time.
"""

from __future__ import annotations

import logging
import os
import sys
import time

import trio

from fsmount import threads
from fsmount.store.pushed import all_pushed
from fsmount.store.read_store import ReadStore
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# The mount starts first.
_FIRST_S = 60.0
# Time for the push at the end of a mount: unmounting waits for it.
END_S = 10.0
# How often the notes of other pushes are looked at, as those of a timer of systemd.
_LOOK_S = 60.0
_NICE = 19


class Pushing:
    """The pushes of one mount. `store`: the path of its store. `encrypts`: see ``--encrypt``.

    Contract: belongs to the trio task.
    """

    def __init__(self, store: str, url: str, every_s: float, *, encrypts: bool = False) -> None:
        self._options = ["-q", *(["--encrypt"] if encrypts else [])]
        self._store = store
        self._url = url
        self._every_s = every_s
        self._failed = ""

    async def run(self, store: ReadStore) -> None:
        """Push at each interval since the last push, until cancelled."""
        await look(store)
        while True:
            await trio.sleep(self._wait_s(store))
            await self._push(nice=_NICE)
            await look(store)

    def _wait_s(self, store: ReadStore) -> float:
        """Seconds until the next push is due."""
        last = max((each.time for each in store.pushed if each.url == self._url), default=0)
        if self._failed or last <= 0:
            return self._every_s if self._failed else min(_FIRST_S, self._every_s)
        # A state that shows the same has the time of the first push of it: it is asked again.
        return min(self._every_s, max(_FIRST_S, last + self._every_s - time.time()))

    async def at_end(self) -> None:
        """Push once more, if the last push worked and this one is quick. The store is closed."""
        if self._failed:
            return
        with trio.move_on_after(END_S) as limit:
            # Somebody waits for this one.
            await self._push(nice=0)
        if limit.cancelled_caught:
            _log.info("%s: the rest is pushed at the next time", self._url)

    async def _push(self, nice: int) -> None:
        """Push. Logs a failure, unless it was the last one, too. A cancelled one is killed."""
        program = [sys.executable, "-P", "-m", "fsmount"]
        command = [*program, "push", *self._options, self._store, self._url]
        try:
            done = await trio.run_process(
                ["nice", "-n", str(nice), *command],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=os.environ | {"FSMOUNT_LOG": os.devnull},
                start_new_session=True,
                deliver_cancel=_kill,
            )
            why = os.fsdecode(done.stderr).strip() if done.returncode else ""
            if done.returncode and not why:
                why = f"it ended with {done.returncode}"
        except OSError as error:
            why = str(error)
        if why and why != self._failed:
            _log.warning(
                "pushing to %s failed, and is tried again every %.0f s: %s",
                self._url,
                self._every_s,
                why,
            )
        elif self._failed and not why:
            _log.info("pushing to %s works again", self._url)
        self._failed = why


async def _kill(process: trio.Process) -> None:
    """End a push at once: what it has sent is found by the next one."""
    process.kill()


async def look(store: ReadStore) -> None:
    """Look at what the last pushes sent."""
    try:
        store.pushed = await threads.call(Kind.FREE_SPACE, all_pushed, store.layout)
    except OSError as error:
        _log.info("the notes of pushes cannot be read: %s", error)


async def keep_looking(store: ReadStore) -> None:
    """Look at what pushes sent, also those of other programs, until cancelled."""
    while True:
        await look(store)
        await trio.sleep(_LOOK_S)
