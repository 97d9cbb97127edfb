"""How much the trash of a store holds, and which names leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsmount.store.index.trash import trashed

KEY = "trash"
"""The key of ``fsmount.json`` with the limits."""
DAYS = 30
"""Days that a name stays in the trash if the config says nothing."""
_DAY_NS = 86400 * 10**9


@dataclass(frozen=True, slots=True)
class TrashLimits:
    """Limits of the trash. None: no limit.

    days : names leave the trash so many days after their deletion; 0: at once.
    most_bytes : the oldest names leave it while the entries of its files take more.
    """

    days: int | None = DAYS
    most_bytes: int | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> TrashLimits:
        """Return the limits that a config has; the default ones for what makes no sense."""
        found = config.get(KEY)
        if not isinstance(found, dict):
            return cls()
        return cls(_number(found.get("days", DAYS), DAYS), _number(found.get("bytes"), None))

    def last_ns(self, now_ns: int) -> int:
        """Return the time up to which deleted names leave by their age; -1 if none does.

        `now_ns` is the time; both are in ns since 1970.
        """
        return -1 if self.days is None else now_ns - self.days * _DAY_NS

    def value(self) -> dict[str, int | None]:
        """Return the value for the config."""
        return {"days": self.days, "bytes": self.most_bytes}

    def leaving(self, names: Sequence[tuple[bytes, int]], now_ns: int) -> list[bytes]:
        """Return the names that leave the trash: always the oldest ones.

        `names` has all names in the trash with the bytes of their files, the oldest first. `now_ns`
        is the time, in ns since 1970. A name of the future counts as one of now.
        """
        count = 0
        if self.days is not None:
            last_ns = self.last_ns(now_ns)
            while (
                count < len(names) and min(trashed(names[count][0]).deleted_ns, now_ns) <= last_ns
            ):
                count += 1
        if self.most_bytes is not None:
            left = sum(nbytes for _, nbytes in names[count:])
            while count < len(names) and left > self.most_bytes:
                left -= names[count][1]
                count += 1
        return [name for name, _ in names[:count]]


def _number(value: object, otherwise: int | None) -> int | None:
    """Return a number of the config that is not negative, or None."""
    if value is None or (isinstance(value, int) and value >= 0 and not isinstance(value, bool)):
        return value
    return otherwise
