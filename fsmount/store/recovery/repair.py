"""`check --repair` mends damage, lists lost files, and never makes damage worse.

1. :func:`rebuild_index` replaces an index that cannot be used. The new rows come from the copy in
   ``packs/``. Rows that the copy does not have come from the entries of the packs. The old index
   goes to ``lost/``. This step needs no open store.
2. Packs get damaged bytes back from their parity (:mod:`heal`), and damaged entries from second
   copies, which earlier builds wrote. If the index is lost, this comes first: then the entries are
   whole that step 1 reads.
3. Files that still cannot be read are listed in ``lost/`` and lose their names, so that rsync or
   import can bring them back. Objects that cannot be rendered are forgotten. Steps 2 and 3 need an
   open store (:func:`repair_store`).
4. Packs get the parity that they should have.

Each step reads facts (:mod:`scan`), plans (:mod:`merge`), and writes (:mod:`write`). A repair that
was killed can be repeated, and the same damage gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from fsmount.errors import Damaged, PacksElsewhere
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk
from fsmount.store.elsewhere import missing
from fsmount.store.files import StoreFiles
from fsmount.store.layout import Layout
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery import merge, scan, write
from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.recovery.heal import Healed, heal_packs
from fsmount.store.writable_store import WritableStore


@dataclass
class Repairs:
    """The changes that a repair made.

    - `rebuilt`: the reason why the index was replaced, or "".
    - `healed`: ids of the objects whose entry got bytes back.
    - `packs`: names of the packs that got bytes back from their parity.
    - `parity`: names of the packs whose parity was damaged, and made anew.
    - `renamed`: paths of files that may have had a newer name.
    - `lost`: paths of files that are gone.
    """

    rebuilt: str = ""
    healed: list[int] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    parity: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether the repair changed nothing."""
        return self == Repairs()


def rebuild_index(root: Path, disk: Disk) -> Repairs:
    """Replace the index of a store if it cannot be used. The caller holds the lock of the store.

    Raises :class:`Damaged` if the folder of packs is missing, :class:`PacksElsewhere` if packs are
    at a URL only: their objects would be lost; also NoStore, FormatUnsupported, OSError.
    """
    layout = Layout(root)
    if (away := missing(layout)).packs:
        raise PacksElsewhere(root, url=away.url)
    identity = str(config.read(root).get("uuid", ""))
    fault = scan.index_fault(layout, disk, identity)
    if not fault:
        return Repairs()
    if not layout.packs.is_dir():
        # The disk with the packs may not be mounted. An index made without packs has no files.
        raise Damaged(layout.packs, reason=contents.MISSING)
    healed = heal_packs(layout, disk)
    plan = merge.plan_index(scan.scan_store(layout, identity))
    write.replace_index(layout, disk, identity, plan)
    return Repairs(
        fault, packs=_names(layout, healed), renamed=list(plan.renamed), lost=list(plan.lost)
    )


async def repair_store(
    store: WritableStore, repairs: Repairs, progress: Callable[[int], None]
) -> Report:
    """Heal entries and remove lost files. Adds to `repairs`; returns the remaining findings.

    The store must be open for writing and running. `progress` is called with numbers of rendered
    objects.
    """
    lengths = {number: length for number, (length, _) in store.index.packs().items()}
    healed = heal_packs(store.layout, store.disk, lengths)
    repairs.packs += _names(store.layout, healed)
    repairs.healed += _objects(store, healed)
    repairs.healed += _heal(store)
    wrong = await store.repair_parity()
    repairs.parity += [store.layout.pack(number).name for number in wrong]
    report = await _check(store, progress)
    if report.readable and report.findings:
        repairs.lost += _remove_lost(store, report.unreadable)
        # Packs may have become shorter.
        await store.repair_parity()
        report = await _check(store, progress)
    # The copy of the index itself may be damaged.
    store.renew_copies()
    return report


def _names(layout: Layout, healed: Iterable[Healed]) -> list[str]:
    """The names of the packs that got bytes back."""
    return [layout.pack(number).name for number in sorted({each.pack for each in healed})]


def _objects(store: StoreFiles, healed: Iterable[Healed]) -> list[int]:
    """The ids of the objects whose entries got bytes back."""
    return [
        found.id
        for number, stretches in groupby(healed, key=lambda each: each.pack)
        for known in [list(stretches)]
        for found in store.index.objects_in(number)
        if any(each.touches(found.offset, found.length) for each in known)
    ]


def _heal(store: StoreFiles) -> list[int]:
    """Give damaged entries the bytes of their second copies. Returns the ids of their objects."""
    healed = []
    for replica in scan.replicas(store.layout, store.index):
        if merge.can_heal(replica):
            write.heal_entry(store.layout, store.disk, replica)
            healed.append(replica.found.id)
    return healed


def _remove_lost(store: StoreFiles, suspects: set[int]) -> list[str]:
    """Remove the files that cannot be rendered because of damage. Returns their paths."""
    facts = scan.scan_index(store.layout, store.index, suspects)
    plan = merge.plan_removal(facts, suspects)
    write.drop_lost(store.layout, store.index, store.disk, plan)
    return [file.path for file in plan.files]


async def _check(store: ReadStore, progress: Callable[[int], None]) -> Report:
    report = check_relations(store)
    if report.readable:
        await check_contents(store, report, progress)
    return report
