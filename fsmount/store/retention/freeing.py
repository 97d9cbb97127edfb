"""Which objects go when pictures go, and how many bytes that frees. Pure: arrays in, arrays out.

An object goes when no file shows it and no shown object needs it. Pictures have ranks
(:func:`~fsmount.store.retention.rules.ranks`): those of low ranks go first. So each object has a
rank as well, with which it goes: the highest one of the pictures that show it, or show an object
that needs it. One pass over the needs of all objects gives the ranks of all, and with them the
bytes that any number of dropped pictures frees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fsmount.store.retention.rules import KEPT, Bools, Ints

DEAD = -1
"""The rank of an object that goes although no picture goes: nothing shown needs it now."""


@dataclass(frozen=True)
class Objects:
    """All objects of a store, by id: arrays (n,) of int64 but `has_layer`, which is bool.

    ids : ascending. pack, offset, length : place of the entry. kept : bytes of the file in
    ``raw/``, else 0. uses : number of files that show it. has_layer : whether it is a
    frame.
    """

    ids: Ints
    pack: Ints
    offset: Ints
    length: Ints
    kept: Ints
    uses: Ints
    has_layer: Bools

    def rows(self, ids: Ints) -> Ints:
        """Return the rows of objects by their ids, which exist: int64, of the same length."""
        return np.searchsorted(self.ids, ids).astype(np.int64)


def ranks_of_use(
    objects: Objects, shown: Ints, ranks: Ints, trashed: dict[int, int] | None = None
) -> Ints:
    """Return with which rank the last picture goes that shows an object: int64 (n,).

    Parameters
    ----------
    objects : Objects
        All objects.
    shown, ranks : int64 (m,)
        Ids of the objects that pictures show, and the ranks of these pictures; each file once.
    trashed : dict
        Number of files in the trash that show an object, by id. These files count as gone.

    Returns
    -------
    int64 (n,)
        KEPT if another file shows the object, DEAD if none does.
    """
    count = len(objects.ids)
    rows = objects.rows(shown)
    known = np.bincount(rows, minlength=count)
    for number, files in (trashed or {}).items():
        known[objects.rows(np.array([number]))] += files
    found = np.full(count, DEAD, np.int64)
    np.maximum.at(found, rows, ranks)
    found[objects.uses > known] = KEPT
    return found


def ranks_of_objects(
    objects: Objects, of_use: Ints, needs: Iterable[tuple[Ints, Ints, Ints]]
) -> Ints:
    """Return with which rank each object goes: int64 (n,).

    Parameters
    ----------
    objects : Objects
        All objects.
    of_use : int64 (n,)
        The result of :func:`ranks_of_use`.
    needs : iterable
        Parts of all needs: ids of objects that files show, the number of objects that each of them
        needs, and the ids of those, one after the other. Ids of objects that do not exist, as
        damage leaves them, are ignored.
    """
    found = of_use.copy()
    for ids, counts, needed in needs:
        rows = np.minimum(objects.rows(needed), len(objects.ids) - 1)
        exist = objects.ids[rows] == needed
        with_rank = np.repeat(of_use[objects.rows(ids)], counts)
        np.maximum.at(found, rows[exist], with_rank[exist])
    return found


def least_rank(ranks: Ints, costs: Ints, most: int) -> int:
    """Return the lowest rank so that what stays costs at most `most`; KEPT - 1 if none suffices.

    `ranks` and `costs` are int64 (n,). Objects whose rank is at most the result go.
    """
    order = np.argsort(ranks, kind="stable")
    left = int(costs.sum()) - np.cumsum(costs[order])
    total = int(costs[ranks > 0].sum())
    if total <= most:
        return 0
    enough = np.flatnonzero((left <= most) & (ranks[order] < KEPT))
    return int(ranks[order][enough[0]]) if len(enough) else KEPT - 1
