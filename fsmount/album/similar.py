"""Photos that look alike: which neighbours are coded together.

Scene detection of encoders does not find them (measured: one key frame in 16 unrelated photos), so
this looks at the pictures: small grey thumbnails, compared at small shifts, taken within seconds.
"""

from __future__ import annotations

import datetime
import io
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Thumbnail: TypeAlias = npt.NDArray[np.float32]

_SIDE = 48
_SHIFT = 4
# Measured: bursts correlate at 0.95 and more, photos of one walk or flight at 0.83 and less.
_ALIKE = 0.9
_GAP_S = 10.0
_EXIF_IFD, _TAKEN, _FRACTION, _CHANGED = 0x8769, 0x9003, 0x9291, 0x0132


@dataclass(frozen=True, slots=True)
class Look:
    """What is compared: grey thumbnail (48, 48), when taken (s), size and
    orientation."""

    thumbnail: Thumbnail
    taken: float
    shape: tuple[int, int, int]


def look(data: bytes, mtime_ns: int) -> Look | None:
    """The look of a photo file; None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif()
            taken = _taken(exif) or mtime_ns / 1e9
            shape = (*image.size, int(exif.get(0x0112, 1)))
            image.draft("L", (_SIDE * 2, _SIDE * 2))
            small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    # Pillow's plugins raise what comes to them on damaged files.
    except Exception:
        return None
    return Look(np.asarray(small, dtype=np.float32), taken, shape)


def _taken(exif: Image.Exif) -> float | None:
    details = exif.get_ifd(_EXIF_IFD)
    text = str(details.get(_TAKEN) or exif.get(_CHANGED) or "")
    try:
        # The clock of the camera, whatever zone: only differences count.
        moment = datetime.datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S")
        fraction = float("0." + str(details.get(_FRACTION, "0")).strip("\0 "))
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.UTC).timestamp() + fraction


def likeness(first: Thumbnail, second: Thumbnail) -> float:
    """The best normalised correlation (-1 to 1) of two thumbnails over small shifts."""
    best = -1.0
    for down in range(-_SHIFT, _SHIFT + 1):
        for right in range(-_SHIFT, _SHIFT + 1):
            height, width = _SIDE - abs(down), _SIDE - abs(right)
            one = first[max(down, 0) :, max(right, 0) :][:height, :width]
            two = second[max(-down, 0) :, max(-right, 0) :][:height, :width]
            one, two = one - one.mean(), two - two.mean()
            norm = float(np.sqrt(np.vdot(one, one) * np.vdot(two, two)))
            if norm > 0:
                best = max(best, float(np.vdot(one, two)) / norm)
    return best


class Grouping:
    """Runs of neighbours that look alike, told one look after the other; only the last is kept.

    `sizes`: of the runs, at most `most` each; their sum is the count of looks.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._before: Look | None = None
        self.sizes: list[int] = []

    def add(self, look: Look | None) -> None:
        """The next photo; None: it has no look."""
        if self.sizes and self.sizes[-1] < self._most and _alike(self._before, look):
            self.sizes[-1] += 1
        else:
            self.sizes.append(1)
        self._before = look


def _alike(first: Look | None, second: Look | None) -> bool:
    if first is None or second is None or first.shape != second.shape:
        return False
    if abs(first.taken - second.taken) > _GAP_S:
        return False
    return likeness(first.thumbnail, second.thumbnail) >= _ALIKE
