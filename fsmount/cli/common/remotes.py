"""The request to mount what lies at a URL."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from fsmount.caches import default_folder
from fsmount.cli.common.output import warn
from fsmount.cli.common.unlocking import unlock_in_background
from fsmount.errors import KeyRefused
from fsmount.mount.options import MountOptions
from fsmount.mount.session import BringPacks, MountRequest
from fsmount.remote.away import away_packs
from fsmount.remote.cached_store import folder_of, make_private
from fsmount.remote.opening import Unlock
from fsmount.remote.reading import LIMIT_S, for_reading, remote_stores
from fsmount.remote.transport import transport_to
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.packs.supply import Supply
from fsmount.store.read_store import ReadStore

# Disk space for blocks that were read, if the user names none.
_DISK_BYTES = 4 << 30


def request_for_url(url: str, mountpoint: Path, options: MountOptions) -> MountRequest:
    """Return the request to mount a store at a URL, or the stores of several machines.

    Makes the folder for what is read. Raises :class:`UsageError` and :class:`RemoteNeedsExtra` for
    a URL that cannot be used, and OSError.
    """
    # It is made once more in the process that serves: connections do not survive its start.
    transport_to(url)
    unlock = unlock_in_background(url)
    caches = options.disk_cache or default_folder()
    folder = folder_of(url, caches)
    make_private(folder, Disk())

    def stores(options: MountOptions) -> AbstractAsyncContextManager[Mapping[str, ReadStore]]:
        budget = _DISK_BYTES if options.disk_cache_bytes is None else options.disk_cache_bytes
        limit_s = LIMIT_S if options.timeout_s is None else options.timeout_s
        return remote_stores(
            url,
            caches,
            budget=budget,
            cache_bytes=options.cache_bytes,
            limit_s=limit_s,
            unlock=unlock,
        )

    options = dataclasses.replace(options, read_only=True)
    return MountRequest(folder, mountpoint, options, open_stores=stores, url=url)


def bringer(url: str, options: MountOptions) -> BringPacks:
    """Return what brings packs that are at a URL only. No network is asked here.

    If a passphrase is needed and can be typed, it is typed now. Without it the store can be mounted
    all the same: reading of these packs fails. Raises :class:`UsageError`, OSError.
    """
    try:
        unlock = unlock_in_background(url)
    except KeyRefused as error:
        warn(f"{error} Until the next mount, pictures that are only there cannot be read")
        unlock = Unlock()
    caches = options.disk_cache or default_folder()

    def packs(store: StoreFiles, options: MountOptions) -> AbstractAsyncContextManager[Supply]:
        limit_s = LIMIT_S if options.timeout_s is None else options.timeout_s
        return away_packs(
            store.away,
            store.index.identity(),
            caches,
            budget=_DISK_BYTES if options.disk_cache_bytes is None else options.disk_cache_bytes,
            limit_s=limit_s,
            connect=partial(for_reading, limit_s=limit_s, unlock=unlock),
        )

    return packs
