"""Decides which bytes parity (:mod:`fsmount.store.packs.parity`) may give back to its pack.

Parity may be older than its pack, although its checksums are whole: for example if a program
brought an old file back. So the bytes count only if every entry that is whole before is whole
after, too. No entry that counts is ever exchanged for an older one.

No CRC-32 covers the name of an entry, so an entry with a damaged name looks whole. Its parity is
not older: apart from the name it has the same entry.

Functions wait for the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.packs import parity
from fsmount.store.packs.pack import Entry, parse_entry, scan
from fsmount.store.packs.parity import BLOCK, Parity

_log = logging.getLogger(__name__)


def blocks_to_heal(pack: Path, known: Parity) -> dict[int, bytes]:
    """Return the damaged blocks of a pack as its parity gives them back, by block number.

    Leaves out blocks that cannot be rebuilt. Of a missing pack it returns all blocks or none:
    without a pack, it is clear what is lost. Returns none, and logs it, if the parity is older than
    the pack. Raises OSError.
    """
    with parity.reading(pack) as fd:
        bad = known.damaged(fd)
        rebuilt = known.rebuild(fd, bad) if bad else {}
        if fd is None:
            return rebuilt if len(rebuilt) == len(bad) else {}
        if rebuilt and _is_older(pack, fd, known, rebuilt):
            _log.warning("%s knows other bytes than its pack; it is not used", known.path)
            return {}
        return rebuilt


def _is_older(pack: Path, fd: int, known: Parity, rebuilt: Mapping[int, bytes]) -> bool:
    """Whether the rebuilt blocks would damage an entry that is whole. Raises OSError."""
    for offset, length, entry in scan(pack):
        if rebuilt.keys() & set(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)):
            try:
                again, end = parse_entry(known.patched(fd, offset, length, rebuilt))
            except Damaged:
                return True
            if end != length or not _is_same(again, entry):
                return True
    return False


def _is_same(again: Entry, entry: Entry) -> bool:
    """Whether two entries are of one object, or differ in their names alone."""
    return again.object_id == entry.object_id or replace(again, name=entry.name) == entry
