"""Gives packs their bytes back from parity (:mod:`fsmount.store.packs.parity_trust`).

A heal that was killed can be repeated: each block that it has written has its right checksum.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fsmount.errors import Damaged
from fsmount.folder import readable
from fsmount.store import contents
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.packs import parity
from fsmount.store.packs.parity import BLOCK
from fsmount.store.packs.parity_trust import blocks_to_heal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Healed:
    """A stretch of a pack that got its bytes back: its range in bytes."""

    pack: int
    offset: int
    length: int

    def touches(self, offset: int, length: int) -> bool:
        """Whether this stretch has a byte of the given range."""
        return self.offset < offset + length and offset < self.offset + self.length


def heal_packs(
    layout: Layout, disk: Disk, lengths: Mapping[int, int] | None = None
) -> list[Healed]:
    """Write rebuilt blocks to all packs that have damaged ones.

    `lengths` has the committed length of each pack; None if the index is lost. The caller holds the
    lock of the store. Raises OSError.
    """
    healed = []
    names = sorted(entry.name for entry in contents.own(layout.packs, contents.PARITY))
    for name in names:
        pack = (layout.packs / name).with_suffix(".zip")
        try:
            known = parity.load_of(pack)
        except (Damaged, OSError) as error:
            _log.warning("%s", readable(str(error)))
            continue
        number, covered = known.shape.number, known.shape.covered
        is_committed = lengths is None or covered <= lengths.get(number, 0)
        if is_committed and (rebuilt := blocks_to_heal(pack, known)):
            healed += _write(pack, number, rebuilt, disk)
    return healed


def _write(path: Path, number: int, rebuilt: Mapping[int, bytes], disk: Disk) -> list[Healed]:
    """Write rebuilt blocks to their places and force them. Raises OSError."""
    is_new = not path.exists()
    fd = disk.create(path) if is_new else disk.open(path, os.O_RDWR)
    healed = []
    try:
        for first, count in parity.stretches(rebuilt):
            data = b"".join(rebuilt[first + n] for n in range(count))
            disk.pwrite(fd, data, first * BLOCK)
            healed.append(Healed(number, first * BLOCK, len(data)))
        disk.fsync(fd)
    finally:
        disk.close(fd)
    if is_new:
        disk.fsync_folder(path.parent)
    return healed
