"""Which arrangements of windows recur, as far as pixels tell.

Pictures have no names of windows. So this looks at the colours of some busy moments, spread over
their times, in 32 x 18 places. Moments whose colours differ little count as the same arrangement.
It says what a screen mostly looked like, not which programs ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fsmount.web.table import Pictures

SAMPLES = 160
"""How many moments are looked at."""
MOST = 8
# Two moments are alike if their colours differ by less, as a mean of 0 to 255.
_ALIKE = 14.0

Colours = npt.NDArray[np.int16]


def samples(pictures: Pictures, rows: slice) -> list[int]:
    """Return the rows of busy moments to look at, spread evenly."""
    busy = np.flatnonzero(pictures.busy[rows] & (pictures.object[rows] > 0)) + (rows.start or 0)
    if len(busy) <= SAMPLES:
        return [int(row) for row in busy]
    at = np.linspace(0, len(busy) - 1, SAMPLES).astype(np.int64)
    return [int(row) for row in busy[at]]


def grouped(signatures: Sequence[bytes]) -> list[list[int]]:
    """Group moments that look alike by their signatures, the largest group first.

    Each group is a list of their numbers. The first one is the most typical moment.
    """
    if not signatures:
        return []
    # Two screens of different sizes may look alike.
    colours: Colours = np.frombuffer(b"".join(signatures), np.uint8).astype(np.int16)
    colours = colours.reshape(len(signatures), -1)
    left = list(range(len(signatures)))
    groups = []
    while left:
        # The moment that most others are like is the middle of the next group.
        near = [_near(colours, middle, left) for middle in left]
        best = max(range(len(left)), key=lambda i: len(near[i]))
        middle = left[best]
        group = [middle, *(each for each in near[best] if each != middle)]
        groups.append(group)
        taken = set(group)
        left = [each for each in left if each not in taken]
    return groups


def _near(colours: Colours, middle: int, others: Sequence[int]) -> list[int]:
    """Return those of some moments that look like the one in the middle."""
    apart = np.abs(colours[others] - colours[middle]).mean(axis=1)
    return [others[int(i)] for i in np.flatnonzero(apart < _ALIKE)]


def told(groups: Sequence[Sequence[int]], rows: Sequence[int], pictures: Pictures) -> list[Any]:
    """Return the largest groups: [cookie and object of a typical moment, moments, share of all].

    Arrangements that were seen once recur as little as any other moment, and are left out.
    """
    total = sum(map(len, groups)) or 1
    return [
        [
            int(pictures.cookie[rows[group[0]]]),
            int(pictures.object[rows[group[0]]]),
            len(group),
            round(len(group) / total, 3),
        ]
        for group in groups[:MOST]
        if len(group) > 1
    ]
