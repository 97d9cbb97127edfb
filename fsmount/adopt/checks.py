"""What cannot be adopted: each refusal changes nothing and says why."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fsmount.adopt import state
from fsmount.errors import NotAdoptable
from fsmount.legacy.runs import scan
from fsmount.mount import mount_users
from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.options import MountOptions
from fsmount.store import config
from fsmount.store.transfer.estimating import estimate
from fsmount.store.transfer.tree import Summary, walk

# What a store needs besides its files: index, reserve, staged files.
_MARGIN_BYTES = 128 << 20
_ESTIMATE_S = 15.0


def check_folder(folder: Path, options: MountOptions) -> None:
    """Refuse a folder that cannot be mounted on or moved. `folder` is resolved.

    Raises :class:`NotAdoptable`.
    """
    reason = _why_not(folder, options)
    if reason is not None:
        raise NotAdoptable(folder, reason=reason)


def _why_not(folder: Path, options: MountOptions) -> str | None:
    if not folder.is_dir():
        return "there is no such folder" if not folder.exists() else "it is not a folder"
    home = Path.home().resolve()
    if folder == Path("/") or folder == home or folder in home.parents:
        return "it is your home folder, or holds it; name the folder of the pictures"
    if mounted_at(folder) is not None:
        return "a filesystem is mounted there"
    if below := mount_users.mounted_below(str(folder)):
        return f"there are mounts in it: {mount_users.listed([str(path) for path in below])}"
    for outer in (folder, *folder.parents):
        if config.is_store(outer):
            return "it is a store" if outer == folder else f"it lies inside the store {outer}"
    info, parent = folder.stat(), folder.parent
    if info.st_dev != parent.stat().st_dev:
        return f"its files cannot be moved to {parent}, which is on another filesystem"
    if info.st_uid != os.geteuid() and not options.allow_other:
        return "it belongs to another user, whom a mount would lock out; add -o allow_other"
    for place in (folder, parent):
        if not os.access(place, os.W_OK | os.X_OK):
            return f"you cannot write to {place}"
    # The link also answers if the working folder was deleted.
    here = Path("/proc/self/cwd").readlink()
    if here == folder or folder in here.parents:
        return "you are in it; run: cd ~"
    kept = state.place(folder)
    if kept.is_dir() and (state.exists(kept) or not os.listdir(kept)):
        return None
    return f"{kept} exists; move it away" if os.path.lexists(kept) else None


def check_store(folder: Path, store: Path) -> None:
    """Refuse a store that exists, or does not lie apart from the folder. Both are resolved.

    Raises :class:`NotAdoptable`.
    """
    if store == folder or folder in store.parents or store in folder.parents:
        raise NotAdoptable(folder, reason=f"the store {store} must lie outside of it")
    if os.path.lexists(store):
        why = f"{store} exists; choose a new store with --store, or use: fsmount import"
        raise NotAdoptable(folder, reason=why)


def check_files(folder: Path) -> tuple[int, int]:
    """Refuse a folder with files that cannot be read, or that a copy would rename.

    Returns the number of its files and their bytes. Raises :class:`NotAdoptable`, OSError.
    """
    files = total = 0
    unreadable = Summary()
    for item in walk(folder, b"", unreadable):
        if stat.S_ISDIR(item.info.st_mode):
            if config.is_store(item.source):
                raise NotAdoptable(folder, reason=f"there is a store in it: {item.source}")
            if scan(item.source).differences():
                why = (
                    f"{item.source} has .jxl differences, which a store keeps as PNGs; use:"
                    " fsmount import"
                )
                raise NotAdoptable(folder, reason=why)
            continue
        if stat.S_ISREG(item.info.st_mode) and not os.access(item.source, os.R_OK):
            unreadable.problems.append((str(item.source), "you cannot read it"))
        files, total = files + 1, total + item.info.st_size
    if unreadable.problems:
        path, why = unreadable.problems[0]
        raise NotAdoptable(folder, reason=f"{path}: {why}")
    return files, total


async def check_space(folder: Path, store: Path, total: int) -> None:
    """Refuse if the store would not fit beside the folder, which keeps its files meanwhile.

    `total`: the bytes of the folder. Estimates the store only if `total` itself would not fit.
    Raises :class:`NotAdoptable`, OSError.
    """
    disk = os.statvfs(next(path for path in store.parents if path.exists()))
    free = disk.f_bavail * disk.f_frsize
    if total + _MARGIN_BYTES <= free:
        return
    found = await estimate(folder, _ESTIMATE_S, lambda files, count: None)
    if found.high + _MARGIN_BYTES > free:
        why = (
            f"the store needs about {(found.high + _MARGIN_BYTES) >> 20} MiB at {store.parent},"
            f" where {free >> 20} MiB are free; choose another disk with --store"
        )
        raise NotAdoptable(folder, reason=why)
