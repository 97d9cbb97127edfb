"""Gives packs their bytes back from parity (:mod:`fsmount.store.packs.parity`).

Parity may be older than its pack, although its checksums are whole: for example if a program
brought an old file back. So rebuilt blocks are written only if every entry that is whole before is
whole after, too. No entry that counts is ever exchanged for an older one.

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
from fsmount.store.packs.pack import parse_entry, scan
from fsmount.store.packs.parity import BLOCK, Parity

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
        if lengths is None or covered <= lengths.get(number, 0):
            healed += _heal(pack, known, disk)
    return healed


def _heal(path: Path, known: Parity, disk: Disk) -> list[Healed]:
    """Heal one pack as far as its parity can. Raises OSError."""
    with parity.reading(path) as fd:
        bad = known.damaged(fd)
        rebuilt = known.rebuild(fd, bad) if bad else {}
        # Of a missing pack, all or nothing: without a pack, it is clear what is lost.
        if not rebuilt or (fd is None and len(rebuilt) < len(bad)):
            return []
        if fd is not None and _is_older(path, fd, known, rebuilt):
            _log.warning("%s knows other bytes than its pack; it is not used", known.path)
            return []
    return _write(path, known.shape.number, rebuilt, disk)


def _is_older(path: Path, fd: int, known: Parity, rebuilt: Mapping[int, bytes]) -> bool:
    """Whether the rebuilt blocks would damage an entry that is whole. Raises OSError."""
    for offset, length, entry in scan(path):
        if rebuilt.keys() & set(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)):
            try:
                again, end = parse_entry(known.patched(fd, offset, length, rebuilt))
            except Damaged:
                return True
            if end != length or again.object_id != entry.object_id:
                return True
    return False


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
