"""Renames a store's folder in the middle of a script and makes a new store under its old name.

The moved store must have all changes that were acknowledged before and after the rename. The new
store must stay the same, byte for byte.
"""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from tests.crash.traffic import unheard


class Moving:
    """Moves the folder `root` to ``moved`` beside it. `path` leads to the folder at any time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._moved = root.with_name("moved")
        self._number = os.open(root, os.O_PATH)
        self._new = root
        self._found: dict[str, bytes] = {}

    @property
    def path(self) -> Path:
        """A path to the moved store, by its descriptor."""
        return Path("/proc/self/fd", str(self._number))

    def away(self) -> None:
        """Rename the store, and make another one under its name."""
        self._root.rename(self._moved)
        with unheard():
            config.make(self._root, Disk())
        self._found = _files(self._root)

    def back(self) -> None:
        """Put the new store aside, and give the first its name again."""
        self._new = self._root.with_name("new")
        self._root.rename(self._new)
        self._moved.rename(self._root)

    def close(self) -> str:
        """End the move; returns the failure text about the new store, or ""."""
        os.close(self._number)
        found = _files(self._new)
        changed = {name for name in found | self._found if found.get(name) != self._found.get(name)}
        return f"the new store was changed: {sorted(changed)}" if changed else ""


def _files(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
