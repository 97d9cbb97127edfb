"""The two writers of an open store."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.writer import Writer


@dataclass(frozen=True, slots=True)
class Writers:
    """The writers of an open store; :mod:`fsmount.store.packs.writer` says why there are two.

    new : writes new objects.
    moved : writes entries that repack moves.

    Contract: belongs to the trio task.
    """

    new: Writer
    moved: Writer

    @property
    def packs(self) -> PackSet:
        """The packs that both writers share."""
        return self.new.packs

    def is_open(self, number: int) -> bool:
        """Whether one of the writers has the pack open; see :meth:`Writer.is_open`."""
        return self.new.is_open(number) or self.moved.is_open(number)

    async def seal(self, packs: Iterable[int]) -> None:
        """Seal each writer that has one of `packs` open; see :meth:`Writer.seal`."""
        numbers = list(packs)
        for writer in (self.new, self.moved):
            if any(map(writer.is_open, numbers)):
                await writer.seal()

    def abandon(self) -> None:
        """See :meth:`Writer.abandon`."""
        self.moved.abandon()
        self.new.abandon()

    def close(self) -> None:
        """Close both writers, the second also if the first fails; see :meth:`Writer.close`."""
        with ExitStack() as closing:
            closing.callback(self.new.close)
            closing.callback(self.moved.close)
