"""Packs of a store that lie at a URL only: the record of them, and when it counts.

A pack is elsewhere if the record names it, and no file of its length is in ``packs/``. So a file
that is there counts, whatever the record says, and one unlink makes a pack lie elsewhere. The
config has format 3 then, which an older fsmount refuses: it would take these packs for lost. The
order of the steps, each forced before the next one:

1. to drop packs: the record, then format 3, then the files go;
2. to have them back: the files come, then format 2, then the record goes.

A process that dies between two steps leaves packs that are here and at the URL. If the config was
lost and made anew, the record counts all the same. `docs/format.md` specifies it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsmount.errors import Damaged
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout

_FORMAT = 1


@dataclass(frozen=True)
class Away:
    """A pack at a URL.

    length, mtime_ns : size in bytes and time of last change that its file had in the store.
    parts : folder, SHA-256 in hex and bytes of each object that it consists of there, in order.
    """

    length: int
    mtime_ns: int
    parts: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Elsewhere:
    """The packs that a record names, by number, and their URL."""

    url: str = ""
    packs: Mapping[int, Away] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of these packs."""
        return sum(away.length for away in self.packs.values())


NOWHERE = Elsewhere()
"""All packs are here."""


def recorded(layout: Layout) -> Elsewhere:
    """All packs that the record names; those that are here, too.

    Waits for the disk. Raises :class:`Damaged` if there must be a record, and it cannot be read;
    :class:`NoStore`, :class:`FormatUnsupported`, OSError.
    """
    is_needed = config.read(layout.root)["format"] >= config.ELSEWHERE
    path = layout.elsewhere
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values["format"] != _FORMAT or values.pop("sha256") != _digest(values):
            raise ValueError("a bit of it has changed")
        packs = {
            int(number): Away(length, mtime_ns, tuple((str(a), str(b), int(c)) for a, b, c in rows))
            for number, (length, mtime_ns, *rows) in values["packs"].items()
        }
        return Elsewhere(str(values["url"]), packs)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError) as error:
        if is_needed:
            raise Damaged(path, reason=_LOST) from error
        return NOWHERE


_LOST = (
    "it says which packs are only at a URL. Put it back from a copy, or make it anew from what is"
    " at the URL: fsmount evict --keep all STORE URL. If nothing of the store was ever evicted,"
    " fsmount.json is damaged: write format 2 into it"
)


def missing(layout: Layout) -> Elsewhere:
    """The packs that are elsewhere. Waits for the disk. Raises as :func:`recorded`."""
    found = recorded(layout)
    away = {n: each for n, each in found.packs.items() if not _is_here(layout, n, each)}
    return Elsewhere(found.url, away) if away else NOWHERE


def _is_here(layout: Layout, number: int, away: Away) -> bool:
    try:
        return layout.pack(number).stat().st_size == away.length
    except FileNotFoundError:
        return False


def note(layout: Layout, disk: Disk, found: Elsewhere) -> None:
    """Write the record and then format 3, both durably. Files may go after that.

    The caller owns the store. Raises OSError, :class:`NoStore`, :class:`FormatUnsupported`.
    """
    values: dict[str, Any] = {
        "format": _FORMAT,
        "url": found.url,
        "packs": {
            str(number): [away.length, away.mtime_ns, *away.parts]
            for number, away in sorted(found.packs.items())
        },
    }
    # The form that it has when it is read: lists, no tuples.
    values = json.loads(json.dumps(values))
    values["sha256"] = _digest(values)
    disk.write_file(layout.elsewhere, json.dumps(values, indent=0).encode() + b"\n")
    if config.read(layout.root)["format"] != config.ELSEWHERE:
        config.change(layout, disk, format=config.ELSEWHERE)


def settle(layout: Layout, disk: Disk) -> Elsewhere:
    """Finish what was stopped: leave out of the record what is here. Return :func:`missing`.

    The caller owns the store. Raises as :func:`recorded`.
    """
    disk.unlink(layout.coming_pack)
    left = missing(layout)
    format_ = config.read(layout.root)["format"]
    if not left.packs:
        if format_ == config.ELSEWHERE:
            config.change(layout, disk, format=config.FORMAT)
        if layout.elsewhere.exists():
            disk.unlink(layout.elsewhere)
            disk.fsync_folder(layout.root)
        return NOWHERE
    if left != recorded(layout) or format_ != config.ELSEWHERE:
        note(layout, disk, left)
    return left


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
