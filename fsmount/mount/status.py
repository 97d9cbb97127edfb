"""The status of a running mount: extended attributes of its root (see xattrs.py)."""

from __future__ import annotations

import errno
import os
import pwd
from contextlib import suppress

from fsmount.errors import BadMountpoint
from fsmount.mount.mount_table import Mounted

_PREFIX = "user.fsmount."


class DeadMountError(Exception):
    """The process that served the mount has died."""


def read_number(mounted: Mounted, name: str) -> int:
    """A status value that is a number. Raises :class:`DeadMountError`, :class:`BadMountpoint`.

    Without the option allow_other the kernel lets only the user who mounted use a mount, not even
    root. Root asks as that user.
    """
    try:
        return int(os.getxattr(mounted.mountpoint, _PREFIX + name))
    except PermissionError as error:
        owner = mounted.number("user_id")
        if os.geteuid() != 0 or owner is None:
            raise BadMountpoint(mounted.mountpoint, reason=_whose(owner, error)) from error
        return _number_for(mounted, owner, mounted.number("group_id") or 0, name)
    except OSError as error:
        raise _translated(mounted, error) from error


def _whose(owner: int | None, error: OSError) -> str:
    if owner is None or owner == os.geteuid():
        return os.strerror(error.errno or errno.EACCES)
    user = str(owner)
    with suppress(KeyError):
        user = pwd.getpwuid(owner).pw_name
    return f"it is a mount of user {user}; only that user and root can unmount it"


def _translated(mounted: Mounted, error: OSError) -> Exception:
    if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
        return DeadMountError()
    return BadMountpoint(mounted.mountpoint, reason=error.strerror)


def _number_for(mounted: Mounted, user: int, group: int, name: str) -> int:
    """The same, asked by a forked process of another user, which makes only system calls."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            os.write(sender, b"=" + os.getxattr(mounted.mountpoint, _PREFIX + name))
        except OSError as error:
            os.write(sender, b"%d" % (error.errno or errno.EIO))
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if answer.startswith(b"="):
        return int(answer[1:])
    code = int(answer or errno.EIO)
    raise _translated(mounted, OSError(code, os.strerror(code)))
