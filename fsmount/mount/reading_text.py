"""Reads the text of new pictures while a mount is idle and the machine on mains power.

Another process does it, ``fsmount text``, so its memory and its crashes are not those of the mount.
It is stopped (SIGSTOP) while a program uses a file, or on battery power, and goes on later.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from fsmount.errors import TextLocked
from fsmount.mount.power_supply import SUPPLIES, on_mains
from fsmount.store.writable_store import WritableStore

_log = logging.getLogger(__name__)

# Seconds from the end of one run to the next: a run looks at all names of the store.
_EVERY_S = 600.0
# Seconds between two looks at the store while the process runs.
_LOOK_S = 1.0
_TOLD_BYTES = 2000
# Exit codes: pictures were left out; the user reads the text, or a prune removes words.
_SKIPPED, _LOCKED = 3, TextLocked.exit_code


def command(root: Path) -> list[str]:
    """Return the command that reads the text of a store."""
    store = os.path.realpath(root)
    # -P: the folder in which the mount was started has no part of this program.
    return [sys.executable, "-P", "-m", "fsmount", "text", "--quiet", "--when-idle", store]


async def read_text_when_idle(
    store: WritableStore, after_s: float, words: Sequence[str], supplies: Path = SUPPLIES
) -> None:
    """Run the command `words` whenever no file was used for `after_s` seconds, until cancelled."""
    while True:
        await trio.sleep(max(after_s - store.unused_s(), after_s / 4))
        if store.unused_s() < after_s or not on_mains(supplies):
            continue
        await _run(store, after_s, words, supplies)
        await trio.sleep(_EVERY_S)


async def _run(store: WritableStore, after_s: float, words: Sequence[str], supplies: Path) -> None:
    """Run the command. Logs what it tells if it fails."""
    try:
        process = await trio.lowlevel.open_process(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as error:
        _log.error("the text of pictures is not read: %s", error)
        return
    told = b""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold_back, process, store, after_s, supplies)
            assert process.stderr is not None
            async for data in process.stderr:
                told = (told + data)[-_TOLD_BYTES:]
            await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    if process.returncode not in (0, _SKIPPED, _LOCKED):
        text = told.decode(errors="replace").strip()
        _log.error("reading text ended with %d: %s", process.returncode, text)


async def _hold_back(
    process: trio.Process, store: WritableStore, after_s: float, supplies: Path
) -> None:
    """Stop a process while a file is used, or on battery power; let it go on afterwards."""
    stopped = False
    while True:
        await trio.sleep(_LOOK_S)
        used = store.unused_s() < min(after_s, _LOOK_S) or not on_mains(supplies)
        rested = store.unused_s() >= after_s and on_mains(supplies)
        if not stopped and used:
            process.send_signal(signal.SIGSTOP)
            stopped = True
        elif stopped and rested:
            process.send_signal(signal.SIGCONT)
            stopped = False
