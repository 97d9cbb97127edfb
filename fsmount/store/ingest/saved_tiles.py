"""The tiles that the planner knows, kept in the index from one start to the next.

They are saved now and then, and at a clean end. So a crash costs the planner the newest ones: the
next frames code again what they show of them.

Contract: everything here belongs to the trio task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fsmount.errors import Damaged, FsmountError
from fsmount.store.frames.planner import Planner
from fsmount.store.index import Index, Object

_log = logging.getLogger(__name__)


class SavedTiles:
    """Loads the tiles of a planner from an index, and saves them there.

    is_here : whether an object rests on nothing that is at a URL only.
    """

    def __init__(self, index: Index, planner: Planner, is_here: Callable[[Object], bool]) -> None:
        self._index = index
        self._is_here = is_here
        self._planner = planner

    def load(self, geometry: str) -> None:
        """Let the planner know the saved tiles of a geometry. Raises OSError."""
        try:
            data = self._index.known_tiles(geometry)
        except Damaged as error:
            _log.warning("%s; tiles are coded again", error)
            data = b""
        self._planner.load(geometry, data, self._is_frame)

    def save_due(self) -> None:
        """Save the tiles that are due; call it inside the transaction of a commit.

        Raises OSError, :class:`Damaged`.
        """
        for geometry in self._planner.to_save():
            self._save(geometry)
        for geometry in self._planner.surplus():
            self._planner.drop(geometry)

    def save(self) -> None:
        """Save all tiles. Logs a failure, because it costs space and no bytes."""
        try:
            for geometry in self._planner.to_save(everything=True):
                self._save(geometry)
        except (OSError, FsmountError) as error:
            _log.warning("%s; tiles are coded again after the next start", error)

    def start_afresh(self) -> None:
        """Let the planner begin with the saved tiles: objects that it knows may go."""
        self.save()
        self._planner.clear()

    def _save(self, geometry: str) -> None:
        self._index.save_tiles(geometry, self._planner.dump(geometry, self._is_frame))

    def _is_frame(self, object_id: int) -> bool:
        """Whether plans may take tiles from an object. Of one that no file shows, some may go."""
        found = self._index.known_object(object_id)
        if found is None or not found.has_layer or found.is_layer_only:
            return False
        return self._is_here(found)
