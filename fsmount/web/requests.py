"""Parts of addresses as values; anything else is a mistake that the answer names."""

from __future__ import annotations

from datetime import date

from starlette.exceptions import HTTPException
from starlette.requests import Request

from fsmount.store.frames.changes import Rectangle
from fsmount.store.frames.previews import View

# Few widths, so that a picture has few previews.
WIDTHS = (320, 480, 960, 1440, 1920, 2560)
# A larger number is none that SQLite knows.
_DIGITS = 18


def number_of(request: Request, name: str) -> int:
    """Return a number in the path. Raises HTTPException."""
    return _number(str(request.path_params[name]), name)


def query_number(request: Request, name: str) -> int:
    """Return a number in the query; 0 if it is missing. Raises HTTPException."""
    return _number(request.query_params.get(name, "0"), name)


def day_of(request: Request) -> date:
    """Return the day in the path, in the form 2026-03-14. Raises HTTPException."""
    text = str(request.path_params["day"])
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or len(text) != 10:
        raise HTTPException(400, "a day looks like 2026-03-14")
    return found


def view_of(request: Request) -> View:
    """Return what a preview is to show: `w`, a width, and `box`, the part. Raises HTTPException."""
    wanted = _number(request.query_params.get("w", str(WIDTHS[1])), "w")
    width = next((each for each in WIDTHS if each >= wanted), WIDTHS[-1])
    box = request.query_params.get("box")
    quality = 72 if width <= WIDTHS[1] and box is None else 85
    return View(width, box=None if box is None else _box(box), quality=quality)


def year_of(request: Request) -> int | None:
    """Return the year of the query; None for all years. Raises HTTPException."""
    text = request.query_params.get("year")
    if text is None:
        return None
    year = _number(text, "year")
    if not 1 <= year <= 9998:
        raise HTTPException(400, "there is no such year")
    return year


def _box(text: str) -> Rectangle:
    parts = [_number(part, "box") for part in text.split(",")]
    if len(parts) != 4:
        raise HTTPException(400, "a box has x, y, width and height")
    return parts[0], parts[1], parts[2], parts[3]


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise HTTPException(400, f"{name} is no number")
    return int(text)
