"""Where an entry lies."""

from __future__ import annotations

from typing import NamedTuple


class Location(NamedTuple):
    """Where an object's entry lies."""

    id: int
    pack: str
    offset: int
    length: int
