"""One tree of errors.

``message`` is what the user reads, a format string over the fields (no docstring, since
``python -OO`` strips those); ``exit_code`` is what the command line returns (the numbers are a
contract and never reused); ``errno`` is what a process gets that meets the error through the mount.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Callable

from fsmount.folder import readable


class FsmountError(Exception):
    """Base of all errors that a command tells in one sentence."""

    message = "{detail}"
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
        return self.told(str)

    def told(self, name: Callable[[str], str]) -> str:
        """The message; what `detail` names is printed as `name` says."""
        if self.message == FsmountError.message:
            # No name, but a sentence.
            return readable(str(self.detail))
        detail = name(readable(str(self.detail)))
        return readable(self.message.format(detail=detail, **self.fields))


def _told(value: object) -> object:
    """The value, or its text where that names a folder by its descriptor."""
    text = str(value)
    shown = readable(text)
    return value if shown == text else shown


def _rebuild(kind: type[FsmountError], detail: object, fields: dict[str, object]) -> FsmountError:
    return kind(detail, **fields)


class UsageError(FsmountError):
    """The command line asks for something that makes no sense."""

    message = "{detail}"
    exit_code = 2


class NoStore(FsmountError):
    """A path that should be a store is none."""

    message = "{detail} is no fsmount store. Make one with: fsmount init {detail}"
    exit_code = 10


class MountNotStore(FsmountError):
    """A path that should be a store is where one is mounted."""

    message = (
        "{detail} is where {source} is mounted, not the store. Copy files through the mount, or "
        "unmount it and name the store."
    )
    exit_code = 10


class StoreExists(FsmountError):
    """A new store cannot be made in a path that is taken."""

    message = "{detail} already holds a store, or is a folder that is not empty. Choose a new path."
    exit_code = 2


class NotWritable(FsmountError):
    """The system does not let this process write to a store."""

    message = "{detail} cannot be written: {reason}"
    errno = _errno.EROFS


class OnlyReadable(NotWritable):
    """As :class:`NotWritable`, for a mount, which can do without."""

    message = (
        "{detail} cannot be written ({reason}). To see its files without changing them: use -o ro"
    )


class StoreLocked(FsmountError):
    """Another process holds the lock of a store."""

    message = (
        "{detail} is in use by another fsmount process ({holder}). Unmount it, wait for it to "
        "end, or work through its mountpoint."
    )
    exit_code = 11


class LockUnclear(FsmountError):
    """A store was not closed, and nobody can tell from here whether its writer still runs."""

    message = (
        "{detail} was not closed by {holder}, last alive at {alive}, and from here nobody can tell"
        " whether that still runs. If it does not, or if this is a copy of a store: --force-lock."
    )
    exit_code = 11


class BadMountpoint(FsmountError):
    """A folder cannot be mounted on, or unmounted."""

    message = "{detail}: {reason}"
    exit_code = 12


class StillHeld(FsmountError):
    """A filesystem is unmounted here and still mounted, or in use, elsewhere."""

    message = (
        "{detail} is unmounted here, but its filesystem is still {how}. Process {server} goes on"
        " serving it, encodes what is left, and ends when it is unmounted there, too."
    )
    exit_code = 14


class NoFuse(FsmountError):
    """The system does not let this process use FUSE."""

    message = "FUSE cannot be used here: {detail}"
    exit_code = 13


class FormatUnsupported(FsmountError):
    """A store was made by a newer fsmount."""

    message = (
        "{detail} is a store of format {version}; this fsmount reads format {supported}. Use a "
        "newer fsmount."
    )
    exit_code = 30


class Damaged(FsmountError):
    """Stored bytes are not what they were when they were written."""

    message = "{detail} is damaged: {reason}"
    exit_code = 20


class Repaired(FsmountError):
    """A repair found damage and saved all files. Only its exit code is used."""

    message = "{detail} was damaged and is repaired"
    exit_code = 21


class NotRepairable(FsmountError):
    """A repair lost files, or left damage. Only its exit code is used."""

    message = "{detail} has damage that cannot be repaired"
    exit_code = 22


class NotExact(FsmountError):
    """A file cannot be re-created from its encoded form, and is kept raw."""

    message = "cannot be re-created exactly: {detail}"


class NoKernel(FsmountError):
    """The native kernel, without which nothing is coded, was not built."""

    message = (
        "fsmount's C kernel is not built here ({reason}). Build it with contrib/install of the "
        "checkout; by hand it takes a C compiler and Python's headers (Debian: build-essential, "
        "python3-dev), then: pip install -e ."
    )


class NeedsExtra(FsmountError):
    """An optional package is missing that reads what was stored."""

    message = (
        "{detail} is whole, but to read it takes {package}, which is not installed: pip install "
        "'fsmount[{extra}]' (in a checkout: contrib/install)"
    )


class WorkerDied(FsmountError):
    """A job killed two worker processes."""

    message = "a worker process died or ran over its limit, twice, in {detail}"


class DiskFull(FsmountError):
    """A disk is full, or a quota is used up."""

    message = "No space left on the disk of {detail}. Free some; nothing accepted so far is lost."
    errno = _errno.ENOSPC


class NoSuchInode(FsmountError):
    """An inode that the index does not know."""

    message = "inode {detail} does not exist"
    errno = _errno.ENOENT


class ReadOnly(FsmountError):
    """A change was asked of a store that is open for reading only."""

    message = "{detail} is open for reading only"
    errno = _errno.EROFS


class NoAlbum(FsmountError):
    """A path that should be an album is none."""

    message = "{detail} is no photo album. Make one with: fsmount album create FOLDER"
    exit_code = 10


class AlbumExists(FsmountError):
    """A new album would replace one that is there."""

    message = "{detail} is there already; --force makes it anew, `fsmount album append` adds to it."
    exit_code = 2


class AlbumLocked(FsmountError):
    """Another process writes the album."""

    message = "{detail} is being written by another fsmount process. Wait for it to end."
    exit_code = 11


class AlbumUnsupported(FsmountError):
    """An album was made by a newer fsmount."""

    message = (
        "{detail} is an album of format {version}; this fsmount reads format {supported}. Use a "
        "newer fsmount."
    )
    exit_code = 30
