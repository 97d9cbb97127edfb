"""Bytes of a store that may lie elsewhere: who reads them asks for them first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol

from fsmount.errors import FsmountError
from fsmount.store.packs.location import Location


class Range(NamedTuple):
    """A run of bytes of a file of the store.

    path : path of the file.
    start, length : in bytes.
    """

    path: str
    start: int
    length: int


def ranges_of(places: Iterable[Location]) -> list[Range]:
    """Return the ranges of some entries."""
    return [Range(place.pack, place.offset, place.length) for place in places]


class Supply(Protocol):
    """Brings bytes of the files of a store to the local disk.

    Contract: belongs to the trio task.
    """

    def pack(self, number: int) -> Path | None:
        """Return the file into which it brings a pack; None if that is the one of the store."""

    def held(self, ranges: Sequence[Range]) -> AbstractAsyncContextManager[None]:
        """In the block these bytes are in the files, as far as the files reach.

        Entering raises FsmountError or OSError if they cannot be brought in a stated time.
        """

    async def renew(self, ranges: Sequence[Range]) -> bool:
        """Bring bytes once more that have proved wrong; False if they come from nowhere else.

        The caller holds them. Raises as :meth:`held`.
        """

    async def blame(self, ranges: Sequence[Range], error: FsmountError) -> FsmountError:
        """Return the error for bytes that were wrong again: it names where they came from."""


class Local:
    """The supply of a store that lies on the local disk as a whole. See :class:`Supply`."""

    def pack(self, number: int) -> Path | None:
        """Packs are in the store."""
        return None

    def held(self, ranges: Sequence[Range]) -> AbstractAsyncContextManager[None]:
        """Nothing to do."""
        return nullcontext()

    async def renew(self, ranges: Sequence[Range]) -> bool:
        """There is no other source."""
        return False

    async def blame(self, ranges: Sequence[Range], error: FsmountError) -> FsmountError:
        """The error says all."""
        return error
