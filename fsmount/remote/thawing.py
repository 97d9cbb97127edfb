"""Which archived objects some files need, what it takes to restore them, and how to ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fsmount.errors import UsageError
from fsmount.remote.objects import PACKS, Body, Part, State
from fsmount.remote.transport import Transport
from fsmount.store.files import StoreFiles
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.tree import Progress

TIERS = ("bulk", "standard", "expedited")
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
# The month of the prices below. Nobody is asked for those of today.
PRICES_OF = "May 2026"
# Hours that Amazon names, at most, and list prices of us-east-1 in dollars: for a GB that is
# restored, and for 1,000 requests. Each region and each other server has its own.
_HOURS = {
    ("GLACIER", "bulk"): 12.0,
    ("GLACIER", "standard"): 5.0,
    ("GLACIER", "expedited"): 0.1,
    ("DEEP_ARCHIVE", "bulk"): 48.0,
    ("DEEP_ARCHIVE", "standard"): 12.0,
}
_PRICES = {
    ("GLACIER", "bulk"): (0.0, 0.0),
    ("GLACIER", "standard"): (0.01, 0.05),
    ("GLACIER", "expedited"): (0.03, 10.0),
    ("DEEP_ARCHIVE", "bulk"): (0.0025, 0.025),
    ("DEEP_ARCHIVE", "standard"): (0.02, 0.1),
}
# While it is restored, a copy costs as much as in the class STANDARD, per GB and month.
_COPY_PRICE, _MONTH_DAYS = 0.023, 30
_GB = 1e9
_POLL_S = 60


class Archive(Protocol):
    """What :class:`fsmount.remote.glacier.Glacier` does."""

    def standing(self, name: str) -> tuple[str, bool | None]:
        """Storage class of an object; whether it is restored, or None if nobody asked."""

    def restore(self, name: str, tier: str, days: int) -> None:
        """Ask for a copy."""


@dataclass
class ThawPlan:
    """What a thaw has to do.

    archived : (name on the server, bytes, storage class) of each object to ask for.
    under_way, restored, hot : numbers of the other objects that the files need.
    waited_for : names of the objects that are not restored yet.
    hours : how long it takes at most.
    dollars : an estimate of what it costs, by Amazon's list prices of us-east-1 of PRICES_OF,
        without the transfer.
    """

    archived: list[tuple[str, int, str]] = field(default_factory=list)
    under_way: int = 0
    restored: int = 0
    hot: int = 0
    waited_for: list[str] = field(default_factory=list)
    hours: float = 0
    dollars: float = 0

    @property
    def bytes(self) -> int:
        """Bytes of the archived objects."""
        return sum(size for _, size, _ in self.archived)


def parts_of(store: StoreFiles, state: State, paths: Iterable[bytes]) -> list[Part]:
    """The objects of packs that some files of a store need, and all below some folders.

    `store` has the index of `state`. Raises FsmountError if there is nothing at a path.
    """
    needed: set[int] = set()
    for path in paths:
        for _, inode in below(store, path):
            if inode.object_id is not None and inode.object_id not in needed:
                needed.add(inode.object_id)
                needed.update(store.index.object(inode.object_id).needs)
    parts: dict[str, Part] = {}
    for number in sorted(needed):
        found = store.index.known_object(number)
        body = None if found is None else state.packs.get(store.layout.pack(found.pack).name)
        if found is not None and body is not None:
            for part in _overlapping(body, found.offset, found.length):
                parts[part.name] = part
    return [part for part in parts.values() if part.kind == PACKS]


def all_parts(state: State) -> list[Part]:
    """The objects of all packs."""
    return [part for part in state.parts() if part.kind == PACKS]


def _overlapping(body: Body, offset: int, length: int) -> Iterable[Part]:
    at = 0
    for part in body.parts:
        if at < offset + length and offset < at + part.length:
            yield part
        at += part.length


def plan(
    remote: Transport,
    archive: Archive,
    parts: Sequence[Part],
    tier: str,
    days: int,
    progress: Progress = lambda files, count: None,
) -> ThawPlan:
    """Ask how each object stands. Raises :class:`UsageError` and errors of the transport."""
    name_there: Callable[[str], str] = getattr(remote, "found_name", lambda name: name)
    made = ThawPlan()
    for part in parts:
        name = name_there(part.name)
        kind, is_restored = archive.standing(name)
        if kind not in _ARCHIVES:
            made.hot += 1
        elif is_restored:
            made.restored += 1
        else:
            if (kind, tier) not in _HOURS:
                raise UsageError(f"the class {kind} has no tier {tier}: choose bulk or standard")
            made.waited_for.append(name)
            made.hours = max(made.hours, _HOURS[kind, tier])
            if is_restored is None:
                made.archived.append((name, part.length, kind))
                made.dollars += _price(part.length, kind, tier, days)
            else:
                made.under_way += 1
        progress(1, part.length)
    return made


def _price(size: int, kind: str, tier: str, days: int) -> float:
    """Dollars for one object: its restoration, the request, and the copy for some days."""
    for_gb, for_requests = _PRICES[kind, tier]
    return size / _GB * (for_gb + _COPY_PRICE * days / _MONTH_DAYS) + for_requests / 1000


def thaw(
    archive: Archive,
    todo: ThawPlan,
    tier: str,
    days: int,
    progress: Progress = lambda files, count: None,
) -> None:
    """Ask for all archived objects of a plan. Raises errors of the transport."""
    for name, size, _ in todo.archived:
        archive.restore(name, tier, days)
        progress(1, size)


def wait(
    archive: Archive,
    todo: ThawPlan,
    progress: Progress = lambda files, count: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until all objects of a plan are restored: hours. Raises errors of the transport."""
    left = list(todo.waited_for)
    while left:
        waiting = [name for name in left if not archive.standing(name)[1]]
        progress(len(left) - len(waiting), 0)
        left = waiting
        if left:
            sleep(_POLL_S)
