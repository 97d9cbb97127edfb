"""The options of a mount, as written after ``-o``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
    would stay in /etc/fstab. For a URL: `disk_cache_bytes`: disk space for what was read;
    `disk_cache`: the folder for it, None for the usual one. `timeout_s`: a read that gets no answer
    ends with an error after so many seconds. `credentials`: a file with variables of the
    environment, such as keys for a server. `push`: a URL that the mount pushes its store to, every
    `push_every_s` seconds and at its end; `push_encrypts`: encrypted.
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
    disk_cache_bytes: int | None = None
    disk_cache: Path | None = None
    credentials: Path | None = None
    timeout_s: int | None = None
    push: str | None = None
    push_every_s: int = 3600
    push_encrypts: bool = False

    @property
    def is_for_url(self) -> bool:
        """Whether an option is given that means something for a URL only."""
        return (self.disk_cache_bytes, self.disk_cache, self.timeout_s) != (None, None, None)


def _bytes(word: str, value: str) -> int:
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)", value.upper().removesuffix("IB").removesuffix("B"))
    if found is None:
        raise UsageError(f"the mount option {word!r} needs a size, for example 4G")
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")


def _seconds(word: str, value: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,6})([smhd])", value)
    if found is None:
        raise UsageError(f"the mount option {word!r} needs a time, for example 30m, 1h or 1d")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _path(word: str, value: str) -> Path:
    if not value:
        raise UsageError(f"the mount option {word!r} needs a path")
    return Path(value).absolute()


def _number(word: str, value: str, radix: int) -> int:
    limit = 0o777 if radix == 8 else (1 << 32) - 2
    try:
        number = int(value, radix)
    except ValueError:
        number = -1
    if not 0 <= number <= limit:
        raise UsageError(f"the mount option {word!r} needs a number of base {radix}")
    return number


def _radix(radix: int) -> Callable[[str, str], int]:
    return lambda word, value: _number(word, value, radix)


def _positive(word: str, value: str) -> int:
    return max(1, _number(word, value, 10))


def _url(word: str, value: str) -> str:
    if not value:
        raise UsageError(f"the mount option {word!r} needs a URL")
    return value


# Options without a value, with the fields that they set.
_WORDS: dict[str, dict[str, Any]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "allow_other": {"allow_other": True},
    "views": {"views": True},
    "nonempty": {"nonempty": True},
    "exec": {"no_exec": False},
    "noexec": {"no_exec": True},
    "async": {"sync": False},
    "sync": {"sync": True},
    "repack": {"repack_after_s": REPACK_AFTER_S},
    "prune": {"prune_after_s": REPACK_AFTER_S},
    "text": {"text_after_s": REPACK_AFTER_S},
    "encrypt": {"push_encrypts": True},
}
# Options with a value: the field, and a function that makes its content of the word and the value.
_VALUES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "uid": ("uid", _radix(10)),
    "gid": ("gid", _radix(10)),
    "umask": ("umask", _radix(8)),
    "repack": ("repack_after_s", _positive),
    "prune": ("prune_after_s", _positive),
    "text": ("text_after_s", _positive),
    "cache": ("disk_cache_bytes", _bytes),
    "cache_dir": ("disk_cache", _path),
    "timeout": ("timeout_s", _positive),
    "credentials": ("credentials", _path),
    "push": ("push", _url),
    "every": ("push_every_s", _seconds),
}


def parse_options(text: str, *, sloppy: bool = False) -> MountOptions:
    """Parse ``ro,allow_other,uid=1000,umask=022``. Raises :class:`UsageError`.

    Of two options that contradict each other the later one counts. With `sloppy` an unknown option
    is no error, as for ``mount -s``.
    """
    options = MountOptions()
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if word in _WORDS:
            options = replace(options, **_WORDS[word])
        elif name in _VALUES:
            field_name, parse = _VALUES[name]
            options = replace(options, **{field_name: parse(word, value)})
        elif not sloppy and not _WITHOUT_EFFECT.fullmatch(word):
            raise UsageError(
                f"unknown mount option {word!r}; known are: ro, rw, allow_other, uid=, gid=,"
                " umask=, repack[=SECONDS], prune[=SECONDS], text[=SECONDS], views, nonempty,"
                " cache=SIZE, cache_dir=, timeout=SECONDS, credentials=, push=URL, every=TIME,"
                " encrypt, and the general ones of mount(8)"
            )
    if options.read_only:
        writing = {
            "repack": options.repack_after_s,
            "prune": options.prune_after_s,
            "push": options.push,
            "text": options.text_after_s,
        }
        for name, chosen in writing.items():
            if chosen is not None:
                raise UsageError(f"the mount option {name!r} needs a mount that may write")
    if options.push_encrypts and options.push is None:
        raise UsageError("the mount option 'encrypt' is for 'push'")
    return options
