"""The files of an album, and how a new state replaces the old one atomically.

``NAME.xml`` is the album. It names the video beside it (``NAME.mp4``) and the folder of files that
are stored verbatim (``NAME.files``). A writer makes the next state in ``.NAME.new``, then commits:

1. It forces every new file to the disk.
2. It renames the XML into place. At this moment the album changes.
3. It moves the verbatim files, then the video, into place.

A crash before step 2 leaves the old album, or none. After a crash between step 2 and the end of
step 3 readers find the video in the work folder, by its size and hash in the XML, and the next
writer finishes step 3.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fsmount import refused
from fsmount.album import document
from fsmount.album.document import AlbumContents, OtherFile
from fsmount.errors import AlbumLocked, DiskFull, FsmountError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class AlbumPaths:
    """The paths of the album called ``name`` in ``folder``."""

    folder: Path
    name: str

    @property
    def xml(self) -> Path:
        """The XML; the album exists if this file does."""
        return self.folder / f"{self.name}.xml"

    @property
    def files(self) -> Path:
        """The folder of files stored verbatim."""
        return self.folder / f"{self.name}.files"

    @property
    def work(self) -> Path:
        """The folder in which a writer makes the next state."""
        return self.folder / f".{self.name}.new"


def paths_of(path: Path) -> AlbumPaths:
    """Return the paths of an album, given its XML, its video, or its name without a suffix."""
    if path.suffix in (".xml", ".mp4", ".mov"):
        path = path.with_suffix("")
    return AlbumPaths(path.parent, path.name)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pending_video(paths: AlbumPaths, contents: AlbumContents) -> Path | None:
    """Return the video in the work folder if a crash left it there after the commit, or None."""
    header = contents.header
    if not header.video:
        return None
    video = paths.work / os.fsdecode(header.video)
    with suppress(FileNotFoundError):
        if video.stat().st_size == header.video_bytes and sha256_of(video) == header.video_sha256:
            return video
    return None


def video_path(paths: AlbumPaths, contents: AlbumContents) -> Path:
    """Return the path of the video, in its place or still in the work folder."""
    return pending_video(paths, contents) or paths.folder / os.fsdecode(contents.header.video)


def other_path(paths: AlbumPaths, contents: AlbumContents, other: OtherFile) -> Path:
    """Return the path of a verbatim file, in its place or still in the work folder."""
    name = os.fsdecode(document.stored_name(other))
    in_work, in_place = paths.work / paths.files.name / name, paths.files / name
    pending = pending_video(paths, contents)
    first, second = (in_work, in_place) if pending else (in_place, in_work)
    return second if not first.exists() and second.exists() else first


def read_current(paths: AlbumPaths) -> AlbumContents | None:
    """Return the contents of the existing album, or None if no album can be read there."""
    try:
        return document.read(paths.xml)
    except (FileNotFoundError, FsmountError):
        return None


@contextmanager
def work_folder(paths: AlbumPaths) -> Iterator[Path]:
    """Hold the work folder, empty, for one writer.

    First finishes the commit of an earlier writer, or deletes what that writer left.

    Raises
    ------
    AlbumLocked
        If another process holds the work folder.
    DiskFull
        If the disk is full, here or in the block.
    FsmountError
        If the filesystem refuses the album's name.
    """
    with _disk_full_as_error(paths):
        try:
            paths.folder.mkdir(parents=True, exist_ok=True)
            paths.work.mkdir(exist_ok=True)
        except OSError as error:
            if not refused.is_refusal(error):
                raise
            raise FsmountError(f"{paths.xml}: {refused.reason(paths.xml, error)}") from error
        fd = os.open(paths.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlbumLocked(paths.xml) from None
            contents = read_current(paths)
            if contents is not None and pending_video(paths, contents) is not None:
                _move_into_place(paths, contents)
            _empty(paths.work)
            try:
                yield paths.work
            finally:
                # After an error in the middle of a commit the work folder is still needed.
                after = read_current(paths)
                if after is None or pending_video(paths, after) is None:
                    _empty(paths.work)
                    paths.work.rmdir()
        finally:
            os.close(fd)


@contextmanager
def _disk_full_as_error(paths: AlbumPaths) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into DiskFull, also in the exception group of a nursery."""
    try:
        yield
    except (OSError, ExceptionGroup) as error:
        if _is_no_space(error):
            raise DiskFull(paths.folder) from error
        raise


def _is_no_space(error: Exception) -> bool:
    """Whether an error, or one in its exception group, says that a disk is full."""
    if isinstance(error, ExceptionGroup):
        return any(map(_is_no_space, error.exceptions))
    return isinstance(error, OSError) and error.errno in NO_SPACE


def _empty(folder: Path) -> None:
    """Delete everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def commit(paths: AlbumPaths, contents: AlbumContents, replaced: AlbumContents | None) -> None:
    """Put the new state from the work folder into place.

    Parameters
    ----------
    paths : AlbumPaths
        The album; the caller holds its :func:`work_folder`.
    contents : AlbumContents
        The new state.
    replaced : AlbumContents or None
        The old state, if the new one does not continue it; its files are deleted.

    Raises
    ------
    OSError
        The album is the old one or the new one; see the module.
    """
    for path in paths.work.rglob("*"):
        _fsync(path)
    _fsync(paths.work)
    (paths.work / paths.xml.name).rename(paths.xml)
    _fsync(paths.folder)
    _move_into_place(paths, contents)
    if replaced is not None:
        _delete_replaced(paths, contents, replaced)
    _fsync(paths.folder)


def _move_into_place(paths: AlbumPaths, contents: AlbumContents) -> None:
    """Move the verbatim files and the video into place.

    The video moves last: while it is in the work folder, readers look there for the files too.
    """
    files = paths.work / paths.files.name
    if files.is_dir():
        paths.files.mkdir(exist_ok=True)
        for path in files.iterdir():
            path.rename(paths.files / path.name)
        _fsync(paths.files)
    if contents.header.video:
        name = os.fsdecode(contents.header.video)
        (paths.work / name).rename(paths.folder / name)


def _delete_replaced(paths: AlbumPaths, contents: AlbumContents, replaced: AlbumContents) -> None:
    """Delete the files of the replaced album that the new one does not use."""
    kept = {document.stored_name(other) for other in contents.others if other.kept}
    for other in replaced.others:
        if other.kept and document.stored_name(other) not in kept:
            (paths.files / os.fsdecode(document.stored_name(other))).unlink(missing_ok=True)
    with suppress(OSError):
        paths.files.rmdir()
    old, new = replaced.header.video, contents.header.video
    if old and old != new:
        (paths.folder / os.fsdecode(old)).unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    """Force a file or folder to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A copied file: its size in bytes, its SHA-256, and the name of the copy."""

    size: int
    sha256: str
    name: bytes


def copy_verbatim(source: Path, folder: Path, is_free: Callable[[bytes], bool]) -> CopiedFile:
    """Copy a file with its times and permissions into a folder, which is created if missing.

    The copy gets a substitute name if ``is_free`` denies its own, if the filesystem refuses it, or
    if the filesystem ignores case and another file has the name in other capitals.

    Raises
    ------
    OSError
        If the file cannot be read or written, or no name is accepted.
    """
    folder.mkdir(exist_ok=True)
    with source.open("rb") as reader, _new_file(source, folder, is_free) as writer:
        digest = hashlib.sha256()
        while data := reader.read(_COPY_BYTES):
            digest.update(data)
            writer.write(data)
        size = writer.tell()
    target = Path(writer.name)
    # FAT stores no permissions. The XML records them, and the times.
    with suppress(PermissionError):
        shutil.copystat(source, target)
    return CopiedFile(size, digest.hexdigest(), os.fsencode(target.name))


@contextmanager
def _new_file(source: Path, folder: Path, is_free: Callable[[bytes], bool]) -> Iterator[BinaryIO]:
    """Create a file under the first accepted name; delete it if the block raises."""
    own = os.fsencode(source.name)
    why: OSError = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    for name in (own, *refused.substitutes(own)):
        target = folder / os.fsdecode(name)
        if not is_free(name):
            continue
        try:
            file = target.open("xb")
            refused.check_listed(target)
        except OSError as error:
            if not isinstance(error, FileExistsError) and not refused.is_refusal(error):
                raise
            why = error
            continue
        try:
            with file:
                yield file
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return
    raise OSError(why.errno, refused.reason(Path(source.name), why))
