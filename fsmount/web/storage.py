"""What the pictures of a store take, by month, and how the store grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fsmount.store.recovery.check import check_relations
from fsmount.store.retention.growth import FORECAST_DAYS
from fsmount.store.store import open_read_store
from fsmount.web.table import Pictures

_MOST_FINDINGS = 50


def by_month(pictures: Pictures) -> dict[str, Any]:
    """Return figures of the pictures, from memory.

    - months: [month, pictures, bytes of the files, bytes that they brought to the store].
    - staged: how many pictures are still to be encoded, and their bytes.
    - per_day: bytes that the store grows by in a day, and pictures; means of the last days.
    """
    months = pictures.day_of().astype("datetime64[D]").astype("datetime64[M]")
    names, number = np.unique(months, return_inverse=True)
    sums = [
        np.bincount(number, column, len(names)).astype(np.int64).tolist()
        for column in (np.ones(len(number)), pictures.size, pictures.stored)
    ]
    staged = pictures.staged
    return {
        "months": [list(row) for row in zip(map(str, names), *sums, strict=True)],
        "staged": [int(staged.sum()), int(pictures.size[staged].sum(dtype=np.int64))],
        "per_day": _per_day(pictures),
    }


def _per_day(pictures: Pictures) -> dict[str, float] | None:
    """Return the means of the last :data:`FORECAST_DAYS` days; None without pictures."""
    days = pictures.day_of()
    if not len(days):
        return None
    first = max(int(days[0]), int(days[-1]) - FORECAST_DAYS + 1)
    rows = slice(int(np.searchsorted(days, first)), None)
    count = int(days[-1]) - first + 1
    return {
        "days": count,
        "stored": float(pictures.stored[rows].sum(dtype=np.int64)) / count,
        "pictures": len(days[rows]) / count,
    }


def health(path: Path) -> dict[str, Any]:
    """Return the figures of a whole store, and damage that can be seen without decoding.

    Reads all rows, and looks at each file of the store, as `stats` and `check` do. So it runs in a
    thread, on a connection of its own. Raises FsmountError, OSError.
    """
    with open_read_store(path) as opened:
        found = opened.stats()
        report = check_relations(opened)
        disk = os.statvfs(opened.layout.root)
    findings = [
        {"what": each.what, "why": each.why, "files": len(each.files)} for each in report.findings
    ]
    return {
        "files": found["files"],
        "logical_bytes": found["logical_bytes"],
        "stored_bytes": found["stored_bytes"],
        "ratio": found["ratio"],
        "parity_bytes": found["parity_bytes"],
        "trash_files": found["deleted_files"],
        "objects": found["objects"],
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "findings": findings[:_MOST_FINDINGS],
        "more_findings": max(0, len(findings) - _MOST_FINDINGS),
        "notices": [{"what": each.what, "why": each.why} for each in report.notices],
    }
