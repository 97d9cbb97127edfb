"""What reads text: the interface of an engine."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fsmount.text.results import Rectangle

Picture = npt.NDArray[np.uint8]
"""Pixels in RGB: uint8 (height, width, 3)."""


class ReadWord(NamedTuple):
    """A word that an engine has found. `confidence` is 0 to 100."""

    text: str
    place: Rectangle
    confidence: float


class Engine(Protocol):
    """Reads text. One thread uses it.

    name : the engine, its version and its languages. Words of another engine may differ.
    """

    name: str

    def read(self, picture: Picture) -> list[ReadWord]:
        """Return the words in a picture, line by line.

        Raises :class:`NoEngine` if the engine has failed twice on it.
        """

    def close(self) -> None:
        """End the engine."""
