"""The figures that `fsmount stats` prints: numbers of files and objects, and bytes on the disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from fsmount.store import contents
from fsmount.store.index import Index
from fsmount.store.layout import Layout


def statistics(path: Path, layout: Layout, index: Index) -> dict[str, Any]:
    """Return the figures that `fsmount stats --json` prints; sizes in bytes.

    `path` is the path of the store to print. Reads all rows, and looks at each file of the store;
    may wait for the disk. Raises OSError.
    """
    totals = index.totals()
    kinds = {kind: totals["kinds"].get(kind, 0) for kind in ("key", "delta", "jpeg", "raw")}
    stored = _stored_bytes(layout, index)
    return {
        "version": 1,
        "store": str(path),
        "files": totals["files"],
        "frames": kinds["key"] + kinds["delta"],
        "objects": {**kinds, "staged": totals["staged"]},
        "raw_reasons": totals["reasons"],
        "logical_bytes": totals["logical_bytes"],
        "stored_bytes": stored,
        "ratio": round(totals["logical_bytes"] / stored, 2) if stored else 0.0,
        "max_depth": totals["max_depth"],
        "packs": len(index.packs()),
        "parity_bytes": _parity_bytes(layout),
        "deleted_files": totals["trashed"],
        "deleted_bytes": totals["trashed_bytes"],
    }


def _parity_bytes(layout: Layout) -> int:
    """Bytes of the parity of packs. Raises OSError."""
    stored = 0
    for entry in contents.own(layout.packs, contents.PARITY):
        with suppress(FileNotFoundError):
            stored += entry.stat().st_size
    return stored


def closed_bytes(layout: Layout) -> int:
    """Return the stored bytes of a store that nobody has open, without opening it.

    For `stats` SQLite opens the index, and leaves a file of shared memory in the folder. The caller
    has made sure that the folder is a store. Raises OSError.
    """
    return layout.index.stat().st_size + _bodies(layout)


def _stored_bytes(layout: Layout, index: Index) -> int:
    """Bytes of packs, large files, staged files and the index. Raises OSError."""
    return index.bytes() + _bodies(layout)


def _bodies(layout: Layout) -> int:
    """Bytes of packs, large files and staged files. Raises OSError."""
    stored = 0
    for folder, form in contents.forms(layout):
        for entry in contents.own(folder, form):
            # A mount that encodes at the same time may remove a staged file during the scan.
            with suppress(FileNotFoundError):
                found = entry.stat()
                # Large raw files may be sparse.
                sparse = folder == layout.raw
                stored += found.st_blocks * 512 if sparse else found.st_size
    return stored
