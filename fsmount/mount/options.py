"""The options of a mount, as written after ``-o``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from fsmount.errors import UsageError
from fsmount.work.machine import default_cache_bytes

# Less than the minute between two screenshots.
REPACK_AFTER_S = 10
# Options of mount(8) and fstab(5) that are for other programs (mount itself, systemd), or change
# nothing here. libfuse always mounts with nosuid and nodev. Access times change only when a program
# sets them.
_WITHOUT_EFFECT = re.compile(
    "defaults|nofail|_netdev|(no)?(auto|users?|owner|group|suid|dev)"
    "|(no)?((dir|rel|strict)?atime|lazytime)|(comment|user)=.*|[xX]-.*"
)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount.

    `uid`, `gid`: the owner that the mount shows instead of the stored one. `umask`: permissions
    that it hides. `no_exec`: the kernel runs no program of the mount. `sync`: the kernel sends an
    fsync after each write. `nonempty`: mount over a folder that has files, which are hidden then.
    `cache_bytes`: memory for rendered files and decoded layers. `repack_after_s`: repack when no
    file was written or read for so many seconds; None: never. `prune_after_s`: the same for pruning
    by the policy of the store. `text_after_s`: the same for reading text. `views`: show virtual
    folders in ``.fsmount``. `force_lock`: see the store's lock; it is no word for ``-o``, since it
    would stay in /etc/fstab.
    """

    read_only: bool = False
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    no_exec: bool = False
    sync: bool = False
    repack_after_s: int | None = None
    prune_after_s: int | None = None
    text_after_s: int | None = None
    views: bool = False
    nonempty: bool = False
    cache_bytes: int = field(default_factory=default_cache_bytes)
    force_lock: bool = False


def parse_options(text: str, *, sloppy: bool = False) -> MountOptions:
    """Parse ``ro,allow_other,uid=1000,umask=022``. Raises :class:`UsageError`.

    Of two options that contradict each other the later one counts. With `sloppy` an unknown option
    is no error, as for ``mount -s``.
    """
    options = MountOptions()
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if word == "ro":
            options = replace(options, read_only=True)
        elif word == "rw":
            options = replace(options, read_only=False)
        elif word == "allow_other":
            options = replace(options, allow_other=True)
        elif word == "views":
            options = replace(options, views=True)
        elif word == "nonempty":
            options = replace(options, nonempty=True)
        elif name == "uid":
            options = replace(options, uid=_number(word, value, 10))
        elif name == "gid":
            options = replace(options, gid=_number(word, value, 10))
        elif name == "umask":
            options = replace(options, umask=_number(word, value, 8))
        elif word in ("exec", "noexec"):
            options = replace(options, no_exec=word == "noexec")
        elif word in ("sync", "async"):
            options = replace(options, sync=word == "sync")
        elif word == "repack":
            options = replace(options, repack_after_s=REPACK_AFTER_S)
        elif name == "repack":
            options = replace(options, repack_after_s=max(1, _number(word, value, 10)))
        elif word == "prune":
            options = replace(options, prune_after_s=REPACK_AFTER_S)
        elif name == "prune":
            options = replace(options, prune_after_s=max(1, _number(word, value, 10)))
        elif word == "text":
            options = replace(options, text_after_s=REPACK_AFTER_S)
        elif name == "text":
            options = replace(options, text_after_s=max(1, _number(word, value, 10)))
        elif not sloppy and not _WITHOUT_EFFECT.fullmatch(word):
            raise UsageError(
                f"unknown mount option {word!r}; known are: ro, rw, allow_other, uid=, gid=,"
                " umask=, repack[=SECONDS], prune[=SECONDS], text[=SECONDS], views, nonempty,"
                " and the general ones of mount(8)"
            )
    if options.read_only and options.repack_after_s is not None:
        raise UsageError("the mount option 'repack' needs a mount that may write")
    if options.read_only and options.prune_after_s is not None:
        raise UsageError("the mount option 'prune' needs a mount that may write")
    if options.read_only and options.text_after_s is not None:
        raise UsageError("the mount option 'text' needs a mount that may write")
    return options


def _number(word: str, value: str, radix: int) -> int:
    limit = 0o777 if radix == 8 else (1 << 32) - 2
    try:
        number = int(value, radix)
    except ValueError:
        number = -1
    if not 0 <= number <= limit:
        raise UsageError(f"the mount option {word!r} needs a number of base {radix}")
    return number
