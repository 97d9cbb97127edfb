"""The command ``fsmount evict``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.options import (
    Size,
    force_lock_option,
    json_option,
    quiet_option,
    split_store,
)
from fsmount.cli.common.output import SOME_SKIPPED, counted, emit, printable, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import start_log, store_to_change
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.errors import StoreMounted, UsageError
from fsmount.mount.mountpoint import all_mounts
from fsmount.remote.evict import EvictSummary, bring_back, evict, renew_record, same_url
from fsmount.remote.opening import open_remote
from fsmount.remote.transport import Transport
from fsmount.store.config import enter, writing
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.lock import Lock
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.store import OpenedStore, open_store

_HELP = f"""\
Give disk space back: drop packs of a store that are at URL.

URL is where fsmount push has sent the store. The oldest packs go first, until those that are here
take at most --keep. A pack goes only if the newest state at URL has it, and after all of it was
read from there and compared with the pack here. A pack that is not pushed yet stays, and so do the
newest pack and large files (raw/). The store must not be mounted.

From then on those pictures are only at URL. A mount shows them as before, and reads them from
there: what was read stays in a folder on the disk (mount options cache=, cache_dir=, timeout=, as
for a URL). Without the network they give an error, all else works, and new pictures are taken as
ever: they rest on nothing that is only at URL. fsmount push goes on to the same URL, also with
--prune. What needs all packs refuses the store, and names the way back: check --repair, repack,
prune, import, copy, backup, text, serve, and a push to another URL.

--keep all brings all packs back, compares them with their hashes, and leaves a store as any other.
URL may be left out then. If the record of what is at URL (elsewhere.json in the store) is lost or
damaged, --keep all with URL makes it anew first.

Older versions of fsmount refuse a store that has packs at URL only. With --dry-run nothing is
read but the newest state, and nothing changes.

{UNLOCK_HELP}

\b
Examples:
  fsmount evict --keep 20G ~/shots.store s3://my-bucket/shots
  fsmount evict --keep 20G ~/shots.store s3://my-bucket/shots --dry-run
  fsmount evict --keep all ~/shots.store
"""

_STOPPED = "What has gone is at URL. To go on, run the command again."
_BACK_STOPPED = "What has come back stays. To go on, run the command again."


class _Keep(Size):
    """A number of bytes, or "all", which is None."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes, -1 for "all"; fail if it is malformed or negative."""
        return -1 if value in ("all", -1) else super().convert(value, param, ctx)


@click.command("evict", help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE URL")
@click.option(
    "--keep",
    type=_Keep(),
    required=True,
    metavar="SIZE",
    help="Bytes of packs that stay here, such as 20G; all: bring all packs back.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing.")
@force_lock_option
@unlock_options
@quiet_option
@json_option
def evict_(
    arguments: tuple[str, ...], keep: int, dry_run: bool, force_lock: bool, as_json: bool
) -> int:
    """Run ``fsmount evict``. Returns the exit code."""
    comes_back = keep < 0
    store, urls = split_store(arguments, 0, fewest=0 if comes_back else 1)
    if len(urls) > 1:
        raise UsageError("name one store and one URL: fsmount evict --keep SIZE STORE URL")
    store_to_change(store)
    for one in () if comes_back else all_mounts():
        # One that only reads takes no lock, and would not know where the packs are.
        if one.source == os.path.realpath(store):
            raise StoreMounted(store, mountpoint=one.mountpoint)
    start_log()
    remote = open_remote(urls[0], unlock()) if urls else None
    if comes_back and remote is not None and not dry_run:
        with writing(store):
            _renew_record(store, remote, force_lock=force_lock)
    with writing(store), open_store(store, force_lock=force_lock, elsewhere=True) as opened:
        if comes_back:
            return _bring_back(opened, remote, dry_run=dry_run, as_json=as_json)
        assert remote is not None
        return _evict(opened, remote, keep, dry_run=dry_run, as_json=as_json)


def _evict(
    store: OpenedStore, remote: Transport, keep: int, *, dry_run: bool, as_json: bool
) -> int:
    here = (n for k, (n, _) in store.index.packs().items() if k not in store.away.packs)
    total = 0 if dry_run else sum(here) - keep
    with meter("evicting", 0, max(0, total), noun="packs", stopped=_STOPPED) as progress:
        done = evict(store, remote, keep=keep, dry_run=dry_run, progress=progress)
    would = "would be" if dry_run else "are"
    url = printable(remote.url)
    text = (
        f"{counted(done.packs, 'pack')} ({size(done.bytes)}) {would} dropped here."
        f" Packs here: {size(done.here_bytes)}; only at {url}: {size(done.away_bytes)}"
    )
    emit({**asdict(done), "url": remote.url, "dry_run": dry_run}, text, as_json)
    if done.here_bytes <= keep:
        return 0
    if not as_json:
        left = f"{size(done.here_bytes)} stay, more than {size(keep)}"
        if done.unpushed:
            packs = counted(done.unpushed, "pack")
            warn(f"{left}: the newest state at {url} does not have {packs}. Push first")
        else:
            warn(f"{left}: the newest packs stay here")
    return SOME_SKIPPED


def _bring_back(
    store: OpenedStore, remote: Transport | None, *, dry_run: bool, as_json: bool
) -> int:
    away = store.away
    done = EvictSummary()
    if away.packs:
        if remote is not None and not same_url(remote.url, away.url):
            raise UsageError(f"the packs are at {away.url}: leave the URL out")
        remote = remote or open_remote(away.url, unlock())
        total = 0 if dry_run else away.bytes
        stopped = _BACK_STOPPED
        with meter("bringing", len(away.packs), total, noun="packs", stopped=stopped) as progress:
            done = bring_back(store, remote, dry_run=dry_run, progress=progress)
    would = "would come" if dry_run else "came"
    text = f"{counted(done.packs, 'pack')} ({size(done.bytes)}) {would} back; all packs are here"
    if not away.packs:
        text = "all packs are here"
    elif dry_run:
        text = f"{counted(done.packs, 'pack')} ({size(done.bytes)}) would come back"
    emit({**asdict(done), "url": away.url, "dry_run": dry_run}, text, as_json)
    return 0


def _renew_record(store: Path, remote: Transport, *, force_lock: bool) -> None:
    """Make a record that is lost anew. A store without a record cannot be opened."""
    folder = enter(store)
    try:
        ownership = Ownership(Lock(Layout(folder.path).lock, force=force_lock))
        try:
            if renew_record(Layout(folder.path), OwnedDisk(Disk(), ownership), remote):
                warn("the record of packs that are elsewhere was made anew")
        finally:
            ownership.release()
    finally:
        folder.close()
