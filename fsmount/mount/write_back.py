"""Write-back: wait for pages that programs changed through a memory mapping of an open file."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

_log = logging.getLogger(__name__)

# Files of one call of sync(1). A path has up to 4,096 bytes, all arguments together 2 MiB.
_FILES_AT_ONCE = 256
# Looked up before anything is mounted: a folder of PATH may lie below our mountpoint. A process
# that starts a program stands still until that program runs, so it would wait for itself.
_SYNC = shutil.which("sync") or "sync"


def write_back(paths: list[Path]) -> None:
    """Return when the kernel has passed the changed pages of these files of our mount to us.

    The syncfs of the kernel sends the pages but does not wait until we have them; fsync of each
    file does. sync(1) of coreutils calls it: this process must never open a file of its own mount.
    A worker process that starts closes the descriptors that it inherits; the close would wait
    until we have the pages, and we wait until the worker has started.
    """
    for start in range(0, len(paths), _FILES_AT_ONCE):
        command: list[str | Path] = [_SYNC, "--", *paths[start : start + _FILES_AT_ONCE]]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                # A second Ctrl-C at the terminal must not end it.
                start_new_session=True,
            )
        except OSError as error:
            _log.error("pages of open files are not waited for: %s", error)
            return
        if done.returncode:
            _log.error("%s", os.fsdecode(done.stderr).strip())
