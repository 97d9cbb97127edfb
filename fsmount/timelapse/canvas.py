"""Pictures on a canvas of one size, with the time on it if that is wanted."""

from __future__ import annotations

from datetime import datetime, timedelta
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fsmount.errors import FsmountError

_EPOCH = datetime(1970, 1, 1)


class Canvas:
    """Lays pictures out in the size of the first one, scaled to a height.

    Other sizes are fitted in, with black around them. Both sides of the canvas are even, because
    common video formats need that.
    """

    def __init__(self, *, height: int | None, clock: bool) -> None:
        """`height` in pixels, None for that of the first picture. `clock` writes the time."""
        self._height = height
        self._clock = clock
        self._size: tuple[int, int] | None = None

    def frame(self, data: bytes | bytearray, wall_us: int) -> NDArray[np.uint8]:
        """Decode the file of a picture. Return it as uint8 (height, width, 3), RGB.

        `wall_us` is the time on the clock, in us since 1970 as if in UTC. Raises FsmountError if
        the file is no picture.
        """
        try:
            with Image.open(BytesIO(data)) as opened:
                picture = _rgb(opened)
        except Exception as error:
            # A decoder of damaged files may raise anything.
            raise FsmountError(f"it cannot be decoded: {error}") from error
        picture = self._fitted(picture)
        if self._clock:
            _write_time(picture, wall_us)
        return np.asarray(picture)

    def _fitted(self, picture: Image.Image) -> Image.Image:
        width, height = picture.size
        if self._size is None:
            scale = 1.0 if self._height is None else self._height / height
            self._size = max(2, round(width * scale) & ~1), max(2, round(height * scale) & ~1)
        if picture.size == self._size:
            return picture
        if self._height is None and (width & ~1, height & ~1) == self._size:
            # A row or a column is cut off rather than all pixels blurred.
            return picture.crop((0, 0, *self._size))
        scale = min(self._size[0] / width, self._size[1] / height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        picture = picture.resize(inner, Image.Resampling.LANCZOS)
        if inner == self._size:
            return picture
        canvas = Image.new("RGB", self._size)
        canvas.paste(picture, ((self._size[0] - inner[0]) // 2, (self._size[1] - inner[1]) // 2))
        return canvas


def _rgb(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB of 8 bits, with black behind it."""
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture)
        picture = Image.fromarray((wide >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    return picture.convert("RGB")


def _write_time(picture: Image.Image, wall_us: int) -> None:
    """Write date and time to the lower left corner, on a dark ground."""
    text = f"{_EPOCH + timedelta(microseconds=wall_us):%Y-%m-%d %H:%M:%S}"
    size = max(12, picture.height // 36)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    at, edge = (size, picture.height - 2 * size), size // 3
    box = at[0] + left - edge, at[1] + top - edge, at[0] + right + edge, at[1] + bottom + edge
    draw.rectangle(box, fill=(0, 0, 0))
    draw.text(at, text, fill=(255, 255, 255), font=font)
