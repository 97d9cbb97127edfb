"""Names that a filesystem does not take, as FAT, exFAT and NTFS do not take ``:``."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path

# What filesystems say of a name that they do not take.
_ERRNOS = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.ENOENT)
_RESERVED = re.compile(rb'[\x00-\x1f<>:"|?*\\\x7f]')
_DEVICE = re.compile(rb"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", re.IGNORECASE)
CLASH = "another file has this name but for capital letters, which the filesystem there ignores"
# Bytes of a name that is made shorter: every filesystem takes as many.
_MOST_BYTES = 120


def is_refusal(error: OSError) -> bool:
    """Whether an error of creating or renaming a file may be due to its name."""
    return error.errno in _ERRNOS


def reason(path: Path, error: OSError) -> str:
    """Why a file could not be made: what is wrong with the names in `path`, if that may be it."""
    said = error.strerror or str(error)
    faults = [fault for part in path.parts for fault in _faults(os.fsencode(part))]
    if not is_refusal(error) or not faults:
        return said
    listed = ", ".join(dict.fromkeys(faults))
    return f"the filesystem there does not take this name, which has {listed} ({said})"


def _faults(name: bytes) -> list[str]:
    """What some filesystems do not take of a name."""
    found = [ascii(match.decode()).strip("'") for match in _RESERVED.findall(name)]
    if name[-1:] in (b".", b" "):
        found.append("a dot or space at its end")
    if not _is_text(name):
        found.append("bytes that are no UTF-8")
    if _DEVICE.match(name):
        found.append("the name of a device")
    if len(name) > _MOST_BYTES:
        found.append(f"{len(name)} bytes")
    return found


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def substitutes(name: bytes) -> list[bytes]:
    """Names to store a file under if its own is refused, best first: all filesystems take them."""
    number = hashlib.sha256(name).hexdigest()[:8].encode()
    portable = _portable(name)
    found = re.search(rb"(?<=.)\.[0-9A-Za-z]{1,8}\Z", portable)
    suffix = b"" if found is None else found[0]
    stem = portable.removesuffix(suffix)
    numbered = b"%s~%s%s" % (stem, number, suffix), b"file~%s%s" % (number, suffix)
    return [one for one in (portable, *numbered) if len(one) <= _MOST_BYTES and one != name]


def _portable(name: bytes) -> bytes:
    """A name with %XX in the place of each byte that some filesystems do not take."""
    text = name.decode(errors="surrogateescape")
    parts = (
        b"%%%02X" % (ord(one) - 0xDC00) if "\udc80" <= one <= "\udcff" else one.encode()
        for one in text
    )
    name = _RESERVED.sub(_percent, b"".join(parts))
    name = re.sub(rb"[. ]\Z", _percent, name)
    return re.sub(rb"\A.", _percent, name) if _DEVICE.match(name) else name


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def check_listed(path: Path) -> None:
    """Remove a file just made, and raise OSError EINVAL, if it got another name than was asked for.

    FAT leaves out dots and spaces at the end.
    """
    if path.name[-1:] in (".", " ") and path.name not in os.listdir(path.parent):
        path.unlink()
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


def folds_case(folder: Path, scratch: str) -> bool:
    """Whether names that differ in case only mean one file in a folder.

    Makes the file `scratch` (a name in lower case, with letters) and removes it.
    """
    probe = folder / scratch
    try:
        probe.touch()
        try:
            return probe.with_name(scratch.upper()).exists()
        finally:
            probe.unlink()
    except OSError:
        return False
