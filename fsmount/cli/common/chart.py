"""Bar charts as SVG: one panel for each series, above a common axis of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

# Pixels.
_WIDTH, _PANEL, _GAP, _LEFT, _TOP, _BOTTOM = 900, 150, 46, 96, 52, 70
_BARS = _WIDTH - _LEFT - 20
# Labels that fit below the axis.
_MOST_LABELS = 40
_COLOURS = ("#3b6ea5", "#6a9955", "#b5651d", "#7a5195")
_STYLE = "font-family: sans-serif; font-size: 12px; fill: #333"


class Series(NamedTuple):
    """The values of a panel, one for each label, none negative. `form` writes a value."""

    name: str
    values: Sequence[float]
    form: Callable[[float], str]


def bar_chart(title: str, labels: Sequence[str], panels: Sequence[Series]) -> str:
    """Return an SVG file. Each bar has a tooltip with its label and value."""
    height = _TOP + len(panels) * (_PANEL + _GAP) + _BOTTOM - _GAP
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        f' viewBox="0 0 {_WIDTH} {height}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" style="{_STYLE}; font-size: 16px">{_text(title)}</text>',
    ]
    for number, series in enumerate(panels):
        top = _TOP + number * (_PANEL + _GAP)
        lines += _panel(series, labels, top, _COLOURS[number % len(_COLOURS)])
    lines += _axis(labels, height - _BOTTOM)
    return "\n".join([*lines, "</svg>", ""])


def _panel(series: Series, labels: Sequence[str], top: int, colour: str) -> list[str]:
    """The lines of one panel: its name, two lines of a scale, and the bars."""
    most = max(series.values, default=0.0) or 1.0
    width = _BARS / max(len(labels), 1)
    lines = [f'<text x="{_LEFT}" y="{top - 6}" style="{_STYLE}">{_text(series.name)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = top + _PANEL * (1 - share)
        lines += [
            f'<line x1="{_LEFT}" x2="{_LEFT + _BARS}" y1="{y:g}" y2="{y:g}" stroke="#ccc"/>',
            f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end" style="{_STYLE}">'
            f"{_text(series.form(most * share))}</text>",
        ]
    for at, (label, value) in enumerate(zip(labels, series.values, strict=True)):
        bar = _PANEL * value / most
        lines.append(
            f'<rect x="{_LEFT + at * width:.2f}" y="{top + _PANEL - bar:.2f}"'
            f' width="{max(width * 0.8, 0.5):.2f}" height="{bar:.2f}" fill="{colour}">'
            f"<title>{_text(label)}: {_text(series.form(value))}</title></rect>"
        )
    return lines


def _axis(labels: Sequence[str], y: int) -> list[str]:
    """The labels below the last panel, turned, as many as fit."""
    width = _BARS / max(len(labels), 1)
    step = -(-len(labels) // _MOST_LABELS) or 1
    lines = []
    for at in range(0, len(labels), step):
        x = _LEFT + (at + 0.4) * width
        lines.append(
            f'<text x="{x:.2f}" y="{y + 14}" text-anchor="end" style="{_STYLE}"'
            f' transform="rotate(-45 {x:.2f} {y + 14})">{_text(labels[at])}</text>'
        )
    return lines


def _text(value: str) -> str:
    """Text for XML, which cannot hold control characters and lone surrogates."""
    plain = "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in value)
    return escape(plain, {'"': "&quot;"})
