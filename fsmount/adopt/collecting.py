"""Copies into a mount what programs wrote to the files below it.

The copies go through the mount, as those of any program. A file that the mount has in the same form
was imported before, and is skipped. If the mount has another file of the name, the later one wins
only if nobody has written the mount's since it was imported; else both are kept, the one from below
as an original, and the caller gets it as a conflict.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

from fsmount.adopt.activity import is_settled
from fsmount.errors import DiskFull, FsmountError
from fsmount.store.transfer.tree import NO_SPACE, Item, Summary, is_virtual, walk

# The copy gets its name only after all its bytes are written. A later run removes a left one.
_SCRATCH = ".fsmount-adopt"
_GONE = (errno.ENOTCONN, errno.ECONNABORTED)

_Form = tuple[int, int, int]


@dataclass
class PassResult:
    """Result of a pass: numbers of copied files, and of files that may still change.

    `conflicts` lists the paths of which the mount has another file. `problems` lists (path, reason)
    for files that could not be copied.
    """

    copied: int = 0
    unsettled: int = 0
    conflicts: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


class _UnsettledError(Exception):
    """A file was written while it was copied."""


class Collector:
    """Collects what lies below the mount of a store at `folder`.

    `since_ns`: the time of the first mount. A file of the mount with an earlier ctime is as it was
    imported: an import sets the ctime of a file to its mtime, and each change through the mount
    sets it to the time of the change.
    """

    def __init__(self, folder: Path, since_ns: int) -> None:
        self._folder = folder
        self._since_ns = since_ns
        self._scratch = folder / _SCRATCH
        self._scratch.unlink(missing_ok=True)
        # Path -> form of the original when the mount last had the same.
        self._done: dict[bytes, _Form] = {}
        # Path -> form of the copy that this object made.
        self._copies: dict[bytes, _Form] = {}

    def collect(self, *roots: Path) -> PassResult:
        """Copy what the mount lacks of some folders. May wait for their disks.

        Raises :class:`DiskFull`, and FsmountError if the mount has ended.
        """
        found = PassResult()
        for root in roots:
            unreadable = Summary()
            # The path of a root may be a link in /proc, which a walk would not follow.
            for name in sorted(os.listdir(root)):
                for item in walk(root / name, os.fsencode(name), unreadable):
                    self._guarded(item, found)
            found.problems += unreadable.problems
        return found

    def _guarded(self, item: Item, found: PassResult) -> None:
        """Look at one entry, and note the result."""
        try:
            if not is_settled(item.source, item.info):
                found.unsettled += 1
                return
            if self._done.get(item.target) == _form(item.info):
                return
            copied = self._take(item)
        except (FileNotFoundError, _UnsettledError):
            # The next pass sees what became of it.
            found.unsettled += 1
        except FileExistsError:
            found.conflicts.append(os.fsdecode(item.target))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DiskFull(self._folder) from error
            if error.errno in _GONE:
                raise FsmountError(
                    f"the mount at {self._folder} has ended. Run the same command again."
                ) from error
            found.problems.append((os.fsdecode(item.target), error.strerror or str(error)))
        else:
            found.copied += copied
            if stat.S_ISREG(item.info.st_mode):
                self._done[item.target] = _form(item.info)

    def _take(self, item: Item) -> bool:
        """Copy an entry if the mount lacks it. Returns whether it was copied.

        Raises FileExistsError if the mount has another entry of this name, and OSError.
        """
        target = self._folder / os.fsdecode(item.target)
        try:
            there = target.lstat()
        except FileNotFoundError:
            there = None
        except NotADirectoryError as error:
            raise FileExistsError(target) from error
        if stat.S_ISDIR(item.info.st_mode):
            return self._folder_at(item, target, there)
        if there is not None and _is_same(item, target, there):
            return False
        if there is not None and not self._is_ours(item.target, there):
            raise FileExistsError(target)
        self._copy(item, target, there)
        return True

    def _folder_at(self, item: Item, target: Path, there: os.stat_result | None) -> bool:
        if there is None:
            target.mkdir()
            _give_attributes(item, target)
        elif not stat.S_ISDIR(there.st_mode):
            raise FileExistsError(target)
        return there is None

    def _is_ours(self, path: bytes, there: os.stat_result) -> bool:
        """Whether an entry of the mount is as the import or this object made it."""
        if stat.S_ISDIR(there.st_mode):
            return False
        return there.st_ctime_ns < self._since_ns or self._copies.get(path) == _form(there)

    def _copy(self, item: Item, target: Path, there: os.stat_result | None) -> None:
        """Copy an entry that is no folder, under its name only when it is complete.

        `there` is the entry that it replaces. Raises FileExistsError if the mount got another one
        meanwhile, _UnsettledError if the original changed, and OSError.
        """
        scratch = self._scratch
        try:
            _copy_content(item, scratch)
            _give_attributes(item, scratch)
            if _form(item.source.lstat()) != _form(item.info):
                raise _UnsettledError
            if there is None:
                # Unlike a rename, a link never replaces.
                os.link(scratch, target, follow_symlinks=False)
            elif _form(target.lstat()) != _form(there):
                raise FileExistsError(target)
            else:
                scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
        self._copies[item.target] = _form(target.lstat())


def _form(info: os.stat_result) -> _Form:
    """What tells whether a file was written meanwhile: inode, size and mtime."""
    return info.st_ino, info.st_size, info.st_mtime_ns


def _is_same(item: Item, target: Path, there: os.stat_result) -> bool:
    """Whether the mount has an entry in the form that the original has."""
    info = item.info
    if stat.S_IFMT(there.st_mode) != stat.S_IFMT(info.st_mode):
        return False
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(target) == os.readlink(item.source)
    if stat.S_ISREG(info.st_mode):
        return (there.st_size, there.st_mtime_ns) == (info.st_size, info.st_mtime_ns)
    return there.st_rdev == info.st_rdev


def _copy_content(item: Item, scratch: Path) -> None:
    if stat.S_ISLNK(item.info.st_mode):
        scratch.symlink_to(os.readlink(item.source))
    elif stat.S_ISREG(item.info.st_mode):
        shutil.copyfile(item.source, scratch)
    else:
        os.mknod(scratch, stat.S_IFMT(item.info.st_mode) | 0o600, item.info.st_rdev)


def _give_attributes(item: Item, target: Path) -> None:
    """Give a new entry the owner, attributes, permissions and times of the original."""
    info = item.info
    if os.geteuid() == 0 and (info.st_uid, info.st_gid) != (0, os.getegid()):
        os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    for name in os.listxattr(item.source, follow_symlinks=False):
        if not is_virtual(os.fsencode(name)):
            value = os.getxattr(item.source, name, follow_symlinks=False)
            try:
                os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                # A mount has no access control lists.
                if error.errno != errno.ENOTSUP:
                    raise
    if not stat.S_ISLNK(info.st_mode):
        target.chmod(stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
