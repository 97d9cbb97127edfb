"""One tree of errors. The docstring of a class is its message, a format string over the fields.

``exit_code`` is what the command line returns (the numbers are a contract and never reused);
``errno`` is what a process gets that meets the error through the mount.
"""

from __future__ import annotations

import errno as _errno

from fsmount.folder import readable


class FsmountError(Exception):
    """{detail}"""

    exit_code = 1
    errno = _errno.EIO

    def __init__(self, detail: object = "", **fields: object) -> None:
        super().__init__(detail, fields)
        self.detail = detail
        self.fields = fields

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders by pickle, which calls the class with positional arguments.
        # The other process may not know the folder that a path leads to by its descriptor.
        fields = {name: _told(value) for name, value in self.fields.items()}
        return _rebuild, (type(self), _told(self.detail), fields)

    def __str__(self) -> str:
        template = " ".join((type(self).__doc__ or "{detail}").split())
        return readable(template.format(detail=self.detail, **self.fields))


def _told(value: object) -> object:
    """The value, or its text where that names a folder by its descriptor."""
    text = str(value)
    shown = readable(text)
    return value if shown == text else shown


def _rebuild(kind: type[FsmountError], detail: object, fields: dict[str, object]) -> FsmountError:
    return kind(detail, **fields)


class UsageError(FsmountError):
    """{detail}"""

    exit_code = 2


class NoStore(FsmountError):
    """{detail} is no fsmount store. Make one with: fsmount init {detail}"""

    exit_code = 10


class MountNotStore(FsmountError):
    """{detail} is where {source} is mounted, not the store. Copy files through the mount, or
    unmount it and name the store."""

    exit_code = 10


class StoreExists(FsmountError):
    """{detail} already holds a store, or is a folder that is not empty. Choose a new path."""

    exit_code = 2


class NotWritable(FsmountError):
    """{detail} cannot be written: {reason}"""

    errno = _errno.EROFS


class OnlyReadable(NotWritable):
    """{detail} cannot be written ({reason}). To see its files without changing them: use -o ro"""


class StoreLocked(FsmountError):
    """{detail} is in use by another fsmount process ({holder}). Unmount it, wait for it to end,
    or work through its mountpoint."""

    exit_code = 11


class LockUnclear(FsmountError):
    """{detail} was not closed by {holder}, last alive at {alive}, and from here nobody can tell
    whether that still runs. If it does not, or if this is a copy of a store: --force-lock."""

    exit_code = 11


class BadMountpoint(FsmountError):
    """{detail}: {reason}"""

    exit_code = 12


class StillHeld(FsmountError):
    """{detail} is unmounted here, but its filesystem is still {how}. Process {server} goes on
    serving it, encodes what is left, and ends when it is unmounted there, too."""

    exit_code = 14


class NoFuse(FsmountError):
    """FUSE cannot be used here: {detail}"""

    exit_code = 13


class FormatUnsupported(FsmountError):
    """{detail} is a store of format {version}; this fsmount reads format {supported}.
    Use a newer fsmount."""

    exit_code = 30


class Damaged(FsmountError):
    """{detail} is damaged: {reason}"""

    exit_code = 20


class Repaired(FsmountError):
    """{detail} was damaged and is repaired"""

    exit_code = 21


class NotRepairable(FsmountError):
    """{detail} has damage that cannot be repaired"""

    exit_code = 22


class NotExact(FsmountError):
    """cannot be re-created exactly: {detail}"""


class NeedsExtra(FsmountError):
    """{detail} is whole, but to read it takes {package}, which is not installed:
    pip install 'fsmount[{extra}]'"""


class WorkerDied(FsmountError):
    """a worker process died or ran over its limit, twice, in {detail}"""


class DiskFull(FsmountError):
    """No space left on the disk of {detail}. Free some; nothing accepted so far is lost."""

    errno = _errno.ENOSPC


class NoSuchInode(FsmountError):
    """inode {detail} does not exist"""

    errno = _errno.ENOENT


class ReadOnly(FsmountError):
    """{detail} is open for reading only"""

    errno = _errno.EROFS


class NoAlbum(FsmountError):
    """{detail} is no photo album. Make one with: fsmount album create FOLDER"""

    exit_code = 10


class AlbumExists(FsmountError):
    """{detail} is there already; --force makes it anew, `fsmount album append` adds to it."""

    exit_code = 2


class AlbumLocked(FsmountError):
    """{detail} is being written by another fsmount process. Wait for it to end."""

    exit_code = 11


class AlbumUnsupported(FsmountError):
    """{detail} is an album of format {version}; this fsmount reads format {supported}.
    Use a newer fsmount."""

    exit_code = 30
