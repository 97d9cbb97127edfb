"""Objects as plain files in a folder: a disk, a mounted server, or what rclone copies on."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fsmount.errors import RemoteFailed, RemoteMissing, RemoteRefused
from fsmount.remote.pacing import CHUNK
from fsmount.store.disk.disk import Disk

# Ends the name of a file that is being written. A killed program leaves it; no object has it.
_NEW = ".new"
# Errors of a filesystem without hard links (FAT, some servers).
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class FolderTransport:
    """The objects below a folder; see :class:`fsmount.remote.transport.Transport`.

    The folder above it must exist: if the disk is not mounted, nothing is written elsewhere.
    """

    keeps_versions = False

    def __init__(
        self,
        url: str,
        root: str,
        disk: Disk | None = None,
        pace: Callable[[int], None] | None = None,
    ) -> None:
        self.url = url
        self._pace = pace
        self._root = Path(root)
        self._disk = disk or Disk()

    def put(self, name: str, data: bytes) -> bool:
        """Write a file under another name, force it, and link it to its name."""
        place = self._root / name
        with self._translated(name):
            if place.exists():
                return False
            self._make_folders(place.parent)
            scratch = place.with_name(f"{place.name}.{secrets.token_hex(8)}{_NEW}")
            try:
                self._write(scratch, data)
                made = self._name(scratch, place)
            finally:
                with suppress(OSError):
                    self._disk.unlink(scratch)
            self._disk.fsync_folder(place.parent)
            return made

    def get(self, name: str) -> bytes:
        """Read a file."""
        with self._translated(name):
            return (self._root / name).read_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Read a part of a file."""
        with self._translated(name), (self._root / name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file."""
        with self._translated(name):
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the files of a folder, without those that are being written."""
        with self._translated(folder):
            top = self._root / folder
            found = sorted(
                (Path(path) / name).relative_to(self._root).as_posix()
                for path, _, names in os.walk(top, onerror=_unless_missing)
                for name in names
            )
        for name in found:
            size = None if name.endswith(_NEW) else self.size(name)
            if size is not None:
                yield name, size

    def folders(self) -> Sequence[str]:
        """Return the folders in the folder."""
        with self._translated(""):
            try:
                with os.scandir(self._root) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        """Remove a file."""
        with self._translated(name):
            self._disk.unlink(self._root / name)

    def _make_folders(self, folder: Path) -> None:
        above = [each for each in folder.parents if self._root in each.parents]
        for each in (self._root, *reversed(above), folder):
            if not each.is_dir():
                with suppress(FileExistsError):
                    self._disk.mkdir(each)
                self._disk.fsync_folder(each.parent)

    def _write(self, path: Path, data: bytes) -> None:
        fd = self._disk.create(path)
        try:
            if self._pace is None:
                self._disk.pwrite(fd, data, 0)
            else:
                for at in range(0, len(data), CHUNK):
                    chunk = memoryview(data)[at : at + CHUNK]
                    self._pace(len(chunk))
                    self._disk.pwrite(fd, chunk, at)
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)

    def _name(self, scratch: Path, place: Path) -> bool:
        """Give a whole file its name, unless the name is taken; whether it got it.

        Without hard links two programs that do this at the same moment do not notice each other.
        """
        try:
            os.link(scratch, place)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if place.exists():
                return False
            self._disk.rename(scratch, place)
        return True

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn errors of the block into ours."""
        where = f"{self.url.rstrip('/')}/{name}"
        try:
            yield
        except FileNotFoundError as error:
            if not self._root.parent.is_dir():
                why = f"there is no folder {self._root.parent}: mount the disk, or make the folder"
                raise RemoteFailed(where, reason=why) from error
            raise RemoteMissing(where) from error
        except PermissionError as error:
            raise RemoteRefused(where, reason=error.strerror) from error
        except OSError as error:
            why = f"{error.strerror}. Make it possible, and run the command again"
            raise RemoteFailed(where, reason=why) from error
