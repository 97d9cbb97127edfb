"""The files of an album, and how they change: all at once, or not at all.

``NAME.xml`` is the album; it names the video beside it (``NAME.mp4``) and the folder of files kept
verbatim (``NAME.files``). New ones are made in ``.NAME.new``. Then, in this order: everything there
is forced to the disk; the XML is renamed to its place, which is the moment the album changes; files
and the video follow. Death before that moment leaves the old album, or none. After it, those who
read find the video where the XML's hash says it is, and the next command that writes moves it.
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
from fsmount.album.document import Contents, Other
from fsmount.errors import AlbumLocked, DiskFull, FsmountError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SLICE = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where an album called `name` lies in `folder`."""

    folder: Path
    name: str

    @property
    def xml(self) -> Path:
        """The list of photos; an album is there if this is."""
        return self.folder / f"{self.name}.xml"

    @property
    def files(self) -> Path:
        """What is kept verbatim."""
        return self.folder / f"{self.name}.files"

    @property
    def work(self) -> Path:
        """Where the next state is made."""
        return self.folder / f".{self.name}.new"


def place_of(path: Path) -> Place:
    """The album that a path means: its XML, its video, or its name without either."""
    if path.suffix in (".xml", ".mp4", ".mov"):
        path = path.with_suffix("")
    return Place(path.parent, path.name)


def sha256_of(path: Path) -> str:
    """The hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pending(place: Place, contents: Contents) -> Path | None:
    """The video, if it still waits in the work folder for its rename."""
    header = contents.header
    if not header.video:
        return None
    video = place.work / os.fsdecode(header.video)
    with suppress(FileNotFoundError):
        if video.stat().st_size == header.video_bytes and sha256_of(video) == header.video_sha256:
            return video
    return None


def video_of(place: Place, contents: Contents) -> Path:
    """Where the video is."""
    return pending(place, contents) or place.folder / os.fsdecode(contents.header.video)


def other_of(place: Place, contents: Contents, other: Other) -> Path:
    """Where a file kept verbatim is."""
    name = os.fsdecode(document.stored_name(other))
    waiting, settled = place.work / place.files.name / name, place.files / name
    first, second = (waiting, settled) if pending(place, contents) else (settled, waiting)
    return second if not first.exists() and second.exists() else first


def current(place: Place) -> Contents | None:
    """The album that is there; None if there is none that can be read (it may be replaced)."""
    try:
        return document.read(place.xml)
    except (FileNotFoundError, FsmountError):
        return None


@contextmanager
def working(place: Place) -> Iterator[Path]:
    """Hold the work folder, empty, for one writer; raises :class:`AlbumLocked`.

    What an earlier writer left half done is finished first, or forgotten.
    """
    with _space(place):
        try:
            place.folder.mkdir(parents=True, exist_ok=True)
            place.work.mkdir(exist_ok=True)
        except OSError as error:
            if not refused.is_refusal(error):
                raise
            raise FsmountError(f"{place.xml}: {refused.reason(place.xml, error)}") from error
        fd = os.open(place.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlbumLocked(place.xml) from None
            contents = current(place)
            if contents is not None and pending(place, contents) is not None:
                _settle(place, contents)
            _clear(place.work)
            try:
                yield place.work
            finally:
                # Not if an error came between the two halves of a commit.
                after = current(place)
                if after is None or pending(place, after) is None:
                    _clear(place.work)
                    place.work.rmdir()
        finally:
            os.close(fd)


@contextmanager
def _space(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(place.folder) from error
        raise


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def commit(place: Place, contents: Contents, before: Contents | None) -> None:
    """Put what the work folder holds in its place; `before`: the album that this one follows."""
    for path in place.work.rglob("*"):
        _force(path)
    _force(place.work)
    (place.work / place.xml.name).rename(place.xml)
    _force(place.folder)
    _settle(place, contents)
    if before is not None:
        _forget(place, contents, before)
    _force(place.folder)


def _settle(place: Place, contents: Contents) -> None:
    """Files first: while the video waits, readers know that the rest may wait too."""
    files = place.work / place.files.name
    if files.is_dir():
        place.files.mkdir(exist_ok=True)
        for path in files.iterdir():
            path.rename(place.files / path.name)
        _force(place.files)
    if contents.header.video:
        name = os.fsdecode(contents.header.video)
        (place.work / name).rename(place.folder / name)


def _forget(place: Place, contents: Contents, before: Contents) -> None:
    """Remove what only the album before this one needed."""
    kept = {document.stored_name(other) for other in contents.others if other.kept}
    for other in before.others:
        if other.kept and document.stored_name(other) not in kept:
            (place.files / os.fsdecode(document.stored_name(other))).unlink(missing_ok=True)
    with suppress(OSError):
        place.files.rmdir()
    old, new = before.header.video, contents.header.video
    if old and old != new:
        (place.folder / os.fsdecode(old)).unlink(missing_ok=True)


def _force(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was copied: its size, hash, and the name it has in the folder."""

    size: int
    sha256: str
    name: bytes


def keep(source: Path, folder: Path, is_free: Callable[[bytes], bool]) -> Kept:
    """Copy a file with its times and permissions into a folder.

    It gets another name where the filesystem does not take its own, or takes it for that of a file
    that is there (names that differ in case only), or the name is not `is_free`.
    """
    folder.mkdir(exist_ok=True)
    with source.open("rb") as reader, _named(source, folder, is_free) as writer:
        seen = hashlib.sha256()
        while data := reader.read(_SLICE):
            seen.update(data)
            writer.write(data)
        size = writer.tell()
    target = Path(writer.name)
    # FAT has no permissions; the XML has them, and the time.
    with suppress(PermissionError):
        shutil.copystat(source, target)
    return Kept(size, seen.hexdigest(), os.fsencode(target.name))


@contextmanager
def _named(source: Path, folder: Path, is_free: Callable[[bytes], bool]) -> Iterator[BinaryIO]:
    """A new file in a folder; removed if the block raises."""
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
