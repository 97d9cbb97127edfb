"""A cache with a byte budget. It knows no domain type and no trio: workers start without it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """The most recently used values whose sizes add up to at most ``budget`` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: K) -> bool:
        """Whether `key` is held; does not count as a use."""
        return key in self._items

    def get(self, key: K) -> V | None:
        """Return the value and mark it as the most recently used one; None if it is not held."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Hold a value in place of an earlier one; a value larger than the budget is not held.

        Parameters
        ----------
        key : hashable
            The key.
        value : object
            The value.
        size : int
            Its size in bytes.
        """
        self.discard(key)
        if size > self.budget:
            return
        self._items[key] = (value, size)
        self._used += size
        self._shrink()

    def resize(self, budget: int) -> None:
        """Hold no more than `budget` bytes from now on."""
        self.budget = budget
        self._shrink()

    def _shrink(self) -> None:
        while self._used > self.budget:
            _, (_, freed) = self._items.popitem(last=False)
            self._used -= freed

    def discard(self, key: K) -> None:
        """Drop a key, if it is held."""
        _, size = self._items.pop(key, (None, 0))
        self._used -= size

    def clear(self) -> None:
        """Drop everything."""
        self._items.clear()
        self._used = 0
