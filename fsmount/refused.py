"""Names that a filesystem refuses, as FAT, exFAT and NTFS refuse ``:``."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path

# The errors of filesystems for a name that they refuse.
_ERRNOS = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.ENOENT)
_RESERVED = re.compile(rb'[\x00-\x1f<>:"|?*\\\x7f]')
_DEVICE = re.compile(rb"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", re.IGNORECASE)
CLASH = "another file has this name in other capitals, and the filesystem there ignores case"
# Maximum length of a substitute name, which every filesystem accepts.
_MAX_BYTES = 120


def is_refusal(error: OSError) -> bool:
    """Return whether the name may be the reason for an error of creating or renaming a file."""
    return error.errno in _ERRNOS


def reason(path: Path, error: OSError) -> str:
    """Return why a file could not be created.

    If the names in ``path`` may be the reason, that is what is wrong with them; else the error's
    text.
    """
    text = error.strerror or str(error)
    faults = [fault for part in path.parts for fault in _faults(os.fsencode(part))]
    if not is_refusal(error) or not faults:
        return text
    listed = ", ".join(dict.fromkeys(faults))
    return f"the filesystem there refuses this name, which has {listed} ({text})"


def _faults(name: bytes) -> list[str]:
    """Return the parts of a name that some filesystems refuse."""
    found = [ascii(match.decode()).strip("'") for match in _RESERVED.findall(name)]
    if name[-1:] in (b".", b" "):
        found.append("a dot or space at its end")
    if not _is_text(name):
        found.append("bytes that are not UTF-8")
    if _DEVICE.match(name):
        found.append("the name of a device")
    if len(name) > _MAX_BYTES:
        found.append(f"{len(name)} bytes")
    return found


def _is_text(name: bytes) -> bool:
    """Return whether a name is UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def substitutes(name: bytes) -> list[bytes]:
    """Return names, best first, for a file whose own name is refused.

    All filesystems accept them. ``name`` itself is not among them.
    """
    number = hashlib.sha256(name).hexdigest()[:8].encode()
    portable = _portable(name)
    found = re.search(rb"(?<=.)\.[0-9A-Za-z]{1,8}\Z", portable)
    suffix = b"" if found is None else found[0]
    stem = portable.removesuffix(suffix)
    numbered = b"%s~%s%s" % (stem, number, suffix), b"file~%s%s" % (number, suffix)
    return [one for one in (portable, *numbered) if len(one) <= _MAX_BYTES and one != name]


def _portable(name: bytes) -> bytes:
    """Return a name with %XX in place of each byte that some filesystems refuse."""
    text = name.decode(errors="surrogateescape")
    parts = (
        b"%%%02X" % (ord(one) - 0xDC00) if "\udc80" <= one <= "\udcff" else one.encode()
        for one in text
    )
    name = _RESERVED.sub(_percent, b"".join(parts))
    name = re.sub(rb"[. ]\Z", _percent, name)
    return re.sub(rb"\A.", _percent, name) if _DEVICE.match(name) else name


def _percent(match: re.Match[bytes]) -> bytes:
    """Return a byte as %XX."""
    return b"%%%02X" % match[0][0]


def check_listed(path: Path) -> None:
    """Check that a new file got the name that was asked for; else delete it.

    FAT drops dots and spaces at the end of a name.

    Raises
    ------
    OSError
        EINVAL if the file got another name.
    """
    if path.name[-1:] in (".", " ") and path.name not in os.listdir(path.parent):
        path.unlink()
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


def folds_case(folder: Path, scratch: str) -> bool:
    """Return whether names that differ only in case mean one file in a folder.

    Creates the file ``scratch`` (a name in lower case, with letters) and deletes it.
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
