"""The folder for what can be made again: blocks of stores at URLs, and what was read from packs."""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM = Path("/var/cache/fsmount")


def default_folder() -> Path:
    """Return the folder for caches: ``$XDG_CACHE_HOME/fsmount``; root's is ``/var/cache/fsmount``.

    It may be missing.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "fsmount"
    return _SYSTEM if os.geteuid() == 0 else Path.home() / ".cache" / "fsmount"
