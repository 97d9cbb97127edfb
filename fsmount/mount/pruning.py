"""Prunes by the policy of a store, and lets names leave the trash, while a mount is idle.

The words of what went are removed, too, also if a program deleted it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import FsmountError, TextLocked
from fsmount.mount.power_supply import SUPPLIES, on_mains
from fsmount.store import config
from fsmount.store.retention.policy import Policy
from fsmount.store.transfer.policing import run_at
from fsmount.store.writable_store import WritableStore
from fsmount.text.wiping import SECONDS, wipe_at
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# Seconds without use after which a mount without the option counts as idle, and seconds between
# two looks at the trash and the policy.
EXPIRE_AFTER_S = 60.0
_LOOK_S = 600.0

Forget = Callable[[int, bytes], None]
"""Tells the kernel that a name in a folder is gone."""


async def prune_when_idle(
    store: WritableStore, after_s: float | None, forget: Forget, supplies: Path = SUPPLIES
) -> None:
    """Look after the trash whenever no file was used for a while, until cancelled.

    With `after_s` this while is so many seconds, and the store is pruned by its policy, if it has
    one and a run is due. Giving space back stops when a file is used, or on battery power.
    """
    wait_s = EXPIRE_AFTER_S if after_s is None else after_s
    # A mount before this one may have ended before it removed words. Number of bodies that files
    # had given up when words were removed; None: words are to be removed.
    wiped: int | None = None
    while True:
        await trio.sleep(max(wait_s - store.unused_s(), wait_s / 4))
        if store.unused_s() < wait_s or not on_mains(supplies):
            continue
        if after_s is not None:
            try:
                if await _keep_policy(store, forget):
                    wiped = None
            except ValueError as error:
                _log.error("nothing is pruned: %s; fsmount policy set writes a new one", error)
            except Exception:
                _log.exception("pruning failed; it is tried again later")
        try:
            await _let_expire(store, supplies)
        except Exception:
            _log.exception("the trash stays as it is for now")
        if wiped != store.index.let_go:
            wiped = await _wipe_words(store)
        await trio.sleep(_LOOK_S)


async def _keep_policy(store: WritableStore, forget: Forget) -> int:
    """Prune by the policy, if a run is due. Returns the number of pictures that went.

    Raises OSError, FsmountError, ValueError.
    """
    policy = Policy.of(await threads.call(Kind.FREE_SPACE, config.read, store.layout.root))
    last = store.index.pruned()
    now_ns = time.time_ns()
    if policy is None or policy.next_ns(last[0] if last else None) > now_ns:
        return 0
    found = await store.workers.run(run_at, str(store.layout.root), policy.rules)
    count = await store.prune(found.names, forget)
    store.index.set_pruned(now_ns, count, found.nbytes)
    _log.info("policy %s: %d of %d pictures went", policy.rules, count, len(found.names))
    if found.is_over_budget:
        _log.warning("what the policy keeps takes %d bytes, more than its budget", found.left_bytes)
    return count


async def _let_expire(store: WritableStore, supplies: Path) -> None:
    """Let names leave the trash by its limits, and give their space back. Raises as above."""
    unused = store.while_unused()
    if count := await store.let_expire():
        _log.info("%d files left the trash", count)
        await store.give_back(lambda: unused() and on_mains(supplies), compact=False)


async def _wipe_words(store: WritableStore) -> int | None:
    """Remove the words of pictures that the store no longer shows.

    Returns the number of bodies that files had given up before; None if it is to be tried again.
    """
    let_go = store.index.let_go
    unused = store.while_unused()
    count = 0
    try:
        while True:
            done = await store.workers.run(wipe_at, str(store.layout.root), SECONDS)
            count += done.removed
            if not done.left:
                break
            if not unused():
                return None
    except TextLocked:
        return None  # The process that reads text does it, too.
    except (FsmountError, OSError) as error:
        _log.error("words of pictures that are gone may still be in the store: %s", error)
        return None
    if count:
        _log.info("words of %d pictures that are gone were removed", count)
    return let_go
