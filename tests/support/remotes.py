"""Stores that are pushed and pulled."""

from __future__ import annotations

from pathlib import Path

from fsmount.remote.pull import PullSummary, pull
from fsmount.remote.push import PushSummary, push
from fsmount.remote.transport import transport_to
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_read_store


def pushed(root: Path, url: str, *, reread: bool = False) -> PushSummary:
    """Push a store. Opens it for reading."""
    with open_read_store(root) as store:
        return push(store, transport_to(url), reread=reread)


def pulled(url: str, dest: Path, *, disk: Disk | None = None) -> PullSummary:
    """Pull the newest state."""
    return pull(transport_to(url), dest, disk=disk)


def objects_of(url: str) -> dict[str, bytes]:
    """All objects at a URL by name."""
    remote = transport_to(url)
    folders = ("packs", "tails", "index", "staged", "raw", "state")
    return {name: remote.get(name) for folder in folders for name, _ in remote.list(folder)}
