"""Remount: change the flags that the kernel keeps of a mount, while its process goes on."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from fsmount.errors import BadMountpoint
from fsmount.mount.mountpoint import FSTYPE, mounted_at
from fsmount.mount.options import parse_options
from fsmount.mount.status import DeadMountError, read_number

# <sys/mount.h>
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _SYNCHRONOUS, _REMOUNT = 1, 2, 4, 8, 16, 32
# mount(8) gives all options of the line in fstab, or those that the kernel shows.
_WORDS = frozenset(("ro", "rw", "exec", "noexec", "sync", "async"))


def remount(mountpoint: Path, words: Sequence[str]) -> None:
    """Set the flags read-only, noexec and sync of a mount as the options `words` have them.

    All other options keep the values that they have. Raises :class:`BadMountpoint` if this is no
    living mount of fsmount, if its process serves read-only and `words` do not, or if the system
    refuses (a file is open for writing, the caller is not root).
    """
    options = parse_options(",".join(word for word in words if word in _WORDS))
    mounted = mounted_at(mountpoint)
    if mounted is None or mounted.fstype != FSTYPE:
        raise BadMountpoint(mountpoint, reason="no fsmount is mounted there")
    try:
        only_readable = bool(read_number(mounted, "read_only"))
    except DeadMountError:
        raise BadMountpoint(mountpoint, reason="the fsmount that served it has died") from None
    if only_readable and not options.read_only:
        reason = "it was mounted read-only; unmount it, and mount it again to write"
        raise BadMountpoint(mountpoint, reason=reason)
    flags = _REMOUNT | _NOSUID | _NODEV
    flags |= _RDONLY if options.read_only else 0
    flags |= _NOEXEC if options.no_exec else 0
    flags |= _SYNCHRONOUS if options.sync else 0
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(mounted.mountpoint), None, ctypes.c_ulong(flags), None):
        raise BadMountpoint(mountpoint, reason=os.strerror(ctypes.get_errno()))
