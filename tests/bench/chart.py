"""A chart of a comparison as SVG: bytes a picture against ms to open one, both logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from tests.bench.methods import Row

# Pixels.
_WIDTH, _HEIGHT = 900, 560
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 60, 210, 60
_LINE, _LETTER, _RADIUS = 14, 7, 5
_COLOURS = {"files": "#2a6f4e", "pixels": "#3b6ea5", "lossy": "#b5651d"}
_STYLE = "font-family: sans-serif; font-size: 12px"


class _Axis:
    """A logarithmic axis over whole powers of ten, from pixel `start` to pixel `end`."""

    def __init__(self, values: Sequence[float], start: int, end: int) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        """The pixel of a value."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> Iterator[int | float]:
        """The powers of ten."""
        for power in range(self._low, self._high + 1):
            yield 10.0**power if power < 0 else 10**power


def scatter(title: str, rows: Sequence[Row], pictures: int) -> str:
    """Return an SVG file with a point for each row that has opens. There must be one.

    `pictures` is the number of pictures of the comparison. The best place is at the lower left.
    """
    shown = [row for row in rows if row.open_ms]
    across = _Axis([row.bytes / pictures for row in shown], _LEFT, _WIDTH - _RIGHT)
    upward = _Axis([row.open_ms[0] for row in shown], _HEIGHT - _BOTTOM, _TOP)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' width="{_WIDTH}" height="{_HEIGHT}" style="{_STYLE}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="26" font-size="16">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="46">Median ms to open a picture of which nothing is cached</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 14}" text-anchor="end">Bytes a picture</text>',
        *_grid(across, upward),
        *_points(shown, pictures, across, upward),
    ]
    for number, (gives, colour) in enumerate(_COLOURS.items()):
        y = _TOP + 20 * number
        lines += [
            f'<circle cx="{_WIDTH - 90}" cy="{y - 4}" r="5" fill="{colour}"/>',
            f'<text x="{_WIDTH - 78}" y="{y}">gives {gives}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _grid(across: _Axis, upward: _Axis) -> Iterator[str]:
    """The lines of both axes, with their numbers."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in across.ticks():
        x = f"{across.place(tick):.1f}"
        yield f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}" stroke="#ddd"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:,}</text>'
    for tick in upward.ticks():
        y = f"{upward.place(tick):.1f}"
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{tick:,}</text>'


def _points(rows: Sequence[Row], pictures: int, across: _Axis, upward: _Axis) -> Iterator[str]:
    """A point and a name for each row. A name that would cover another or a point moves down."""
    places = [(across.place(row.bytes / pictures), upward.place(row.open_ms[0])) for row in rows]
    # Left, right and middle of what names must not cover.
    taken = [(x - _RADIUS, x + _RADIUS, y) for x, y in places]
    for row, (x, y) in sorted(zip(rows, places, strict=True), key=lambda each: each[1][1]):
        left = x + _RADIUS + 4
        right, middle = left + _LETTER * len(row.name), y
        while any(
            left < end and start < right and abs(middle - other) < _LINE
            for start, end, other in taken
        ):
            middle += 1
        taken.append((left, right, middle))
        figures = f"{row.name}: {row.bytes / pictures:,.0f} bytes, {row.open_ms[0]:.1f} ms"
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{_COLOURS[row.gives]}">'
            f"<title>{escape(figures)}</title></circle>"
        )
        yield f'<text x="{left:.1f}" y="{middle + 4:.1f}">{escape(row.name)}</text>'
