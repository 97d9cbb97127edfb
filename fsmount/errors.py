"""The tree of errors.

``message`` is what the user reads: a format string over the fields. It is not the docstring,
because ``python -OO`` strips docstrings. ``exit_code`` is what the command line returns; the
numbers are a contract and are never reused. ``errno`` is what a process gets that meets the error
through the mount.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Callable

from fsmount.folder import readable


class FsmountError(Exception):
    """Base of all errors that a command reports in one sentence.

    Parameters
    ----------
    detail : object
        What the error is about, mostly a path; the whole sentence if the class has no message.
    **fields : object
        Values for the other fields of the message.
    """

    message = "{detail}"
    exit_code = 1
    errno = _errno.EIO

    def __init__(self, detail: object = "", **fields: object) -> None:
        super().__init__(detail, fields)
        self.detail = detail
        self.fields = fields

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders by pickle, which calls the class with positional arguments.
        # The other process may not know the folder behind a path that names a descriptor.
        fields = {name: _portable(value) for name, value in self.fields.items()}
        return _rebuild, (type(self), _portable(self.detail), fields)

    def __str__(self) -> str:
        return self.text(str)

    def text(self, quote: Callable[[str], str]) -> str:
        """Return the message, with the name in ``detail`` printed by ``quote``."""
        if self.message == FsmountError.message:
            # `detail` is a sentence, not a name.
            return readable(str(self.detail))
        detail = quote(readable(str(self.detail)))
        return readable(self.message.format(detail=detail, **self.fields))


def _portable(value: object) -> object:
    """Return the value, or its text if that names a folder by its descriptor."""
    text = str(value)
    shown = readable(text)
    return value if shown == text else shown


def _rebuild(kind: type[FsmountError], detail: object, fields: dict[str, object]) -> FsmountError:
    """Return an error from its pickled parts."""
    return kind(detail, **fields)


class UsageError(FsmountError):
    """The command line makes no sense."""

    message = "{detail}"
    exit_code = 2


class NoStore(FsmountError):
    """A path is not a store."""

    message = "{detail} is not an fsmount store. Make one with: fsmount init {detail}"
    exit_code = 10


class MountNotStore(FsmountError):
    """A path is the mountpoint of a store, not the store, and the command changes the store."""

    message = (
        "{detail} is the mountpoint of {source}, not the store. Copy files through the mount. For "
        "anything else unmount it first, and name the store."
    )
    exit_code = 10


class MountWithoutStore(FsmountError):
    """A path is a mountpoint of something that is not a store."""

    message = "{detail} is the mountpoint of {source}, and that is not a store."
    exit_code = 10


class InsideMount(FsmountError):
    """A path lies in a mount where a store is wanted."""

    message = (
        "{detail} lies in the mount of {source} at {mountpoint}, and is not a store. Name the "
        "store or the mountpoint."
    )
    exit_code = 10


class StoreExists(FsmountError):
    """The path of a new store is taken."""

    message = "{detail} is a store already, or a folder that is not empty. Choose a new path."
    exit_code = 2


class InsideStore(FsmountError):
    """The path of a new store lies inside another store."""

    message = "{detail} lies inside the store {store}. Choose a path outside of it."
    exit_code = 2


class NotABackup(FsmountError):
    """The folder for a backup holds something that a backup would destroy."""

    message = "{detail} cannot take this backup: {reason}. Choose another folder for it."
    exit_code = 2


class BackupUnsettled(FsmountError):
    """A store changed so quickly that no backup of one state could be made."""

    message = (
        "{detail} changes faster than it can be copied ({reason}). The last complete backup is as"
        " it was, and most of this one is copied. Run the command again."
    )


class NotWritable(FsmountError):
    """The system does not let this process write to a store."""

    message = "{detail} cannot be written: {reason}"
    errno = _errno.EROFS


class OnlyReadable(NotWritable):
    """The same as :class:`NotWritable` for a mount, which can be read-only."""

    message = "{detail} cannot be written ({reason}). To read its files, mount it with -o ro"


class StoreLocked(FsmountError):
    """Another process holds the lock of a store."""

    message = (
        "{detail} is in use by another fsmount process ({holder}). Unmount it, wait for it to "
        "end, or work through its mountpoint."
    )
    exit_code = 11


class LockUnclear(FsmountError):
    """A store was not closed, and this host cannot tell whether its writer still runs."""

    message = (
        "{detail} was not closed by {holder}, last alive at {alive}. This host cannot tell whether"
        " that process still runs. If it does not, or if this is a copy of a store: --force-lock."
    )
    exit_code = 11


class BadMountpoint(FsmountError):
    """A folder cannot be mounted on, or unmounted."""

    message = "{detail}: {reason}"
    exit_code = 12


class NotAdoptable(FsmountError):
    """A folder cannot become the mount of a store."""

    message = "{detail} cannot be adopted: {reason}"
    exit_code = 12


class AdoptLocked(FsmountError):
    """Another process adopts the same folder."""

    message = "{detail} is in use: another fsmount adopts this folder. Wait for it to end."
    exit_code = 11


class StillHeld(FsmountError):
    """A filesystem is unmounted here and still mounted, or in use, elsewhere."""

    message = (
        "{detail} is unmounted here, but its filesystem is still {how}. Process {server} continues"
        " to serve it, encodes waiting files, and ends when it is unmounted there too."
    )
    exit_code = 14


class NoFuse(FsmountError):
    """The system does not let this process use FUSE."""

    message = "FUSE cannot be used here: {detail}"
    exit_code = 13


class PacksElsewhere(FsmountError):
    """Some packs of a store are at a URL only, and the command needs all of them."""

    message = (
        "{detail} has packs that are only at {url}, and this needs all packs here. Bring them back:"
        " fsmount evict --keep all {detail}"
    )


class StoreMounted(FsmountError):
    """A store is mounted, and the command needs it for itself."""

    message = "{detail} is mounted at {mountpoint}. Unmount it first: fsmount umount {mountpoint}"
    exit_code = 11


class FormatUnsupported(FsmountError):
    """A newer fsmount made the store."""

    message = (
        "{detail} is a store of format {version}; this fsmount reads format {supported}. Use a "
        "newer fsmount."
    )
    exit_code = 30


class Damaged(FsmountError):
    """Stored bytes have changed since they were written."""

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


class TextDamaged(FsmountError):
    """The database of words has damage. Nothing else of the store depends on it."""

    message = (
        "{detail} is damaged: {reason}. Pictures are not affected. Remove the file, and fsmount"
        " text makes it again."
    )
    exit_code = 20


class TextLocked(FsmountError):
    """Another process reads the text of a store."""

    message = "{detail}: another fsmount reads the text of this store. Wait for it to end."
    exit_code = 11


class NoText(FsmountError):
    """Nobody has read the text of a store yet."""

    message = "{detail} has no words to search in. Read them with: fsmount text {detail}"
    exit_code = 10


class NoEngine(FsmountError):
    """The program or package that reads text is missing."""

    message = "text cannot be read: {detail}"


class NotExact(FsmountError):
    """A file cannot be re-created from its encoded form, and is stored raw."""

    message = "cannot be re-created exactly: {detail}"


class NoKernel(FsmountError):
    """The native kernel, without which nothing is coded, was not built."""

    message = (
        "fsmount's C kernel is not built here ({detail}). Build it with contrib/install of the "
        "checkout; by hand it takes a C compiler and Python's headers (Debian: build-essential, "
        "python3-dev), then: pip install -e ."
    )


class NeedsExtra(FsmountError):
    """Reading stored data needs an optional package that is missing."""

    message = (
        "{detail} is whole, but reading it needs {package}, which is not installed: pip install "
        "'fsmount[{extra}]' (in a checkout: contrib/install)"
    )


class RemoteFailed(FsmountError):
    """A server, its network or its disk did not do what it was asked for."""

    message = "{detail} failed: {reason}."


class RemoteRefused(FsmountError):
    """A server does not allow a call."""

    message = (
        "{detail} is refused: {reason}. Check the credentials (AWS_ACCESS_KEY_ID,"
        " AWS_SECRET_ACCESS_KEY, AWS_REGION) and what they may do there, or the permissions of the"
        " folder."
    )


class RemoteMissing(FsmountError):
    """An object is not where it should be."""

    message = "{detail} is missing. To send it again, run fsmount push --reread."
    exit_code = 20


class StatePruned(FsmountError):
    """A prune removed the state that is being read."""

    message = (
        "{detail}: a newer state is there, and fsmount push --prune removed the older one that is"
        " being read, with {what}. To read the newer one, unmount and mount again, or run the"
        " command again. --keep-days keeps states as long as mounts last."
    )


class RemoteArchived(FsmountError):
    """An object is in cold storage."""

    message = (
        "{detail} is in cold storage, and cannot be read for some hours. fsmount thaw says how long"
        " it takes and what it costs."
    )


class RemoteNeedsExtra(FsmountError):
    """A kind of URL needs an optional package that is missing."""

    message = (
        "{detail} needs {package}, which is not installed: pip install 'fsmount[{extra}]'"
        " (in a checkout: contrib/install {extra})"
    )


class KeyRefused(FsmountError):
    """An encrypted URL cannot be opened with the keys or the passphrase at hand."""

    message = "{detail} cannot be opened: {reason}."


class RemoteConflict(FsmountError):
    """What is at a URL is not what the command, or what this machine has seen there, says."""

    message = "{detail}: {reason}."


class CacheFailed(FsmountError):
    """The local copy of what was read from a server cannot be used."""

    message = (
        "{detail}: the cache of this mount failed: {reason}. Unmount and mount again, with"
        " -o cache_dir= for another place."
    )


class ServerNeedsExtra(RemoteNeedsExtra):
    """The page needs optional packages that are missing."""

    message = RemoteNeedsExtra.message


class NotPushed(FsmountError):
    """No store was pushed to a URL, or another one."""

    message = "{detail}: {reason}."
    exit_code = 10


class PushOvertaken(FsmountError):
    """Another push to the same URL was quicker."""

    message = (
        "{detail}: another push was complete first, and its state counts. What this one sent stays"
        " there. Run fsmount push again, from one store only."
    )
    exit_code = 11


class PushUnsettled(FsmountError):
    """A store changed so quickly that no state of it could be sent."""

    message = (
        "{detail} changes faster than it can be sent ({reason}). The last state that was pushed is"
        " as it was. Run the command again."
    )


class WorkerDied(FsmountError):
    """A job killed two worker processes, or exceeded its limits in both."""

    message = "a worker process died or exceeded its limits, twice, in {detail}"


class DiskFull(FsmountError):
    """A disk is full, or a quota is used up."""

    message = "No space left on the disk of {detail}. Free some; nothing accepted so far is lost."
    errno = _errno.ENOSPC


class NoSuchInode(FsmountError):
    """The index does not know an inode."""

    message = "inode {detail} does not exist"
    errno = _errno.ENOENT


class NoAlbum(FsmountError):
    """A path is not an album."""

    message = "{detail} is not a photo album. Make one with: fsmount album create FOLDER"
    exit_code = 10


class AlbumExists(FsmountError):
    """A new album would replace an existing one."""

    message = "{detail} exists already; --force replaces it, `fsmount album append` adds to it."
    exit_code = 2


class AlbumLocked(FsmountError):
    """Another process writes the album."""

    message = "{detail} is being written by another fsmount process. Wait for it to end."
    exit_code = 11


class AlbumUnsupported(FsmountError):
    """A newer fsmount made the album."""

    message = (
        "{detail} is an album of format {version}; this fsmount reads format {supported}. Use a "
        "newer fsmount."
    )
    exit_code = 30
