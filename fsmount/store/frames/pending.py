"""An object that other frames already refer to while its own entry is still being made.

Its look has its pixels and its recipe, and its plan says which tiles it will code itself. So its
layer and its record are known before its payload is: coding is lossless. The job that codes it
proves that. It decodes the payload and compares all pixels with the same samples that
:meth:`PendingObject.layer` reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsmount.codec.delta import delta, record
from fsmount.codec.delta.delta import OWN, TileLayout
from fsmount.codec.delta.record import Record
from fsmount.codec.memory import WorkerMemory
from fsmount.store.frames.layers import DecodedLayer
from fsmount.store.frames.planner import Plan
from fsmount.store.packs.entries import FileFacts, picture_record
from fsmount.work.shared_frames import SharedPicture


@dataclass(frozen=True)
class PendingObject:
    """An object whose entry cannot be read yet.

    about, picture, plan : its facts, its picture, and its plan.
    stored : its stored record, if it is coded already; else b"".
    """

    about: FileFacts
    picture: SharedPicture
    plan: Plan
    stored: bytes = b""

    def layer(self, memory: WorkerMemory) -> DecodedLayer:
        """Return the layer that the object will have.

        Its level is given as 0, because it is not known: who computes a row takes the level of the
        coded object. Raises NotExact, OSError.
        """
        own = np.asarray(self.plan.tiles == OWN)
        frame = self.picture.get(memory, whole=bool(2 * np.count_nonzero(own) > own.size)).frame
        return DecodedLayer(delta.layer_in(frame, own), 0)

    def record(self) -> Record:
        """Return the record of an object that is an anchor.

        If it is not coded yet, return the record that it will have if it is coded as planned. That
        is nearly sure if its plan has no guesses. Raises Damaged.
        """
        if self.stored:
            return record.unpack(self.stored)
        dtype = np.dtype(np.uint8) if self.picture.dtype == "uint8" else np.dtype(np.uint16)
        tiles, sources = self.plan.tiles, self.plan.sources
        layout = TileLayout(self.picture.shape, dtype, tiles, sources, np.zeros_like(tiles))
        return picture_record(self.about, layout.without_unused_sources(), self.picture.recipe)
