"""The file ``second.entries`` in ``packs/``: second copies of entries, which earlier builds wrote.

Parity (:mod:`fsmount.store.packs.parity`) takes their place. A repair still uses them. They are
removed when all packs are whole and have parity.
"""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.store.layout import Layout
from fsmount.store.packs.pack import build_entry, scan


def read(layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Yield (object id, bytes of the entry) of the whole second copies. Raises OSError."""
    if layout.second_entries.exists():
        for _, _, entry in scan(layout.second_entries):
            yield entry.object_id, build_entry(entry)
