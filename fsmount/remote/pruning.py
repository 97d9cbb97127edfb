"""Prune: remove states that nobody keeps, and objects that only they name.

A push may find an object there that no state names, and name it a moment after a prune removed it.
So a prune first makes a state of its own, with the same files. A push that began before loses to
it. A push that begins later puts new objects into folders of another number (`folder_of`), and
takes from older folders only what the last state names, which no prune removes. No clock is needed,
and a prune that is stopped, or sleeps for a year, removes nothing else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fsmount.errors import NotPushed, RemoteRefused
from fsmount.remote.objects import (
    FOLDERS,
    State,
    last_state,
    make_state,
    read_state,
    state_name,
    state_names,
)
from fsmount.remote.transport import Transport
from fsmount.store.transfer.tree import Progress

_OBJECT = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:/([1-9][0-9]*))?/[0-9a-f]{{64}}", re.ASCII)
_DAY_S = 86_400


@dataclass
class PruneSummary:
    """The result of a prune.

    generation : number of the newest state.
    kept_states : number of states that are kept.
    states, objects, bytes : what was removed; of a trial run what would be.
    retained : objects that the server refused to remove.
    keeps_versions : whether the bucket keeps what was removed as older versions.
    """

    generation: int = 0
    kept_states: int = 0
    states: int = 0
    objects: int = 0
    bytes: int = 0
    retained: int = 0
    keeps_versions: bool = False


def prune(
    remote: Transport,
    below: Transport,
    *,
    keep_states: int,
    keep_days: float = 0,
    dry_run: bool = False,
    progress: Progress = lambda files, count: None,
) -> PruneSummary:
    """Remove what no kept state names.

    Kept are the newest `keep_states` states that differ, at least one, and those of the last
    `keep_days` days. `below` is the transport without encryption; `remote` may be the same.
    `progress` gets objects and bytes that are done.

    Waits for the network. Raises :class:`NotPushed` if there is no state, :class:`PushOvertaken` if
    a push is complete meanwhile, :class:`Damaged` if a kept state is damaged, errors of the
    transport. What is kept is whole then.
    """
    last = last_state(remote)
    if last is None:
        raise NotPushed(remote.url, reason="no store was pushed there. Check the URL")
    names = state_names(below)
    kept = _kept(remote, last, names, keep_states, time.time() - keep_days * _DAY_S)
    old = [name for name in names if name < state_name(kept[-1].generation)]
    wanted = _names_there(remote, kept)
    doomed = _unnamed(below, wanted, last.prunes)
    done = PruneSummary(last.generation, len(kept))
    if not old and not doomed:
        return done
    if dry_run:
        done.states, done.objects = len(old), len(doomed)
        done.bytes = sum(size for _, size in doomed)
        return done
    # The same files. From here on no push makes a state that rests on what was there before.
    again = replace(last, prunes=last.prunes + 1)
    make_state(remote, again, last)
    done.generation = again.generation
    done.keeps_versions = below.keeps_versions
    for name in old:
        if _removed(below, name):
            done.states += 1
        else:
            # It can still be read, so what it names stays.
            done.retained += 1
            wanted |= _names_there(remote, [read_state(remote, name)])
    for name, size in doomed:
        if name not in wanted:
            if _removed(below, name):
                done.objects += 1
                done.bytes += size
            else:
                done.retained += 1
        progress(1, size)
    return done


def _kept(
    remote: Transport, last: State, names: Sequence[str], most: int, since: float
) -> list[State]:
    """Read the states that are kept, from the newest on. Raises :class:`Damaged`."""
    kept, different = [last], 1
    for name in reversed([name for name in names if name < state_name(last.generation)]):
        state = read_state(remote, name)
        different += not state.shows_the_same(kept[-1])
        if different > max(1, most) and state.time < since:
            break
        kept.append(state)
    return kept


def _names_there(remote: Transport, states: Iterable[State]) -> set[str]:
    """The names that the objects of states have on the server."""
    there: Callable[[str], Sequence[str]] = getattr(remote, "names_there", lambda name: [name])
    return {name for state in states for part in state.parts() for name in there(part.name)}


def _unnamed(below: Transport, wanted: set[str], prunes: int) -> list[tuple[str, int]]:
    """Name and bytes of all objects that are not wanted, of the time until now."""
    found = []
    for folder in FOLDERS:
        for name, size in below.list(folder):
            match = _OBJECT.fullmatch(name)
            if match and int(match[1] or 0) <= prunes and name not in wanted:
                found.append((name, size))
    return found


def _removed(below: Transport, name: str) -> bool:
    """Remove an object; whether the server allowed it."""
    try:
        below.delete(name)
    except RemoteRefused:
        return False
    return True
