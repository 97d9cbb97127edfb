"""The location of an entry."""

from __future__ import annotations

from typing import NamedTuple


class Location(NamedTuple):
    """The location of an object's entry.

    id : object id.
    pack : path of the pack.
    offset, length : position and length of the entry in the pack, in bytes.
    has_layer : whether the object codes pixels of a frame: no dictionary, and no raw file.
    """

    id: int
    pack: str
    offset: int
    length: int
    has_layer: bool = True
