"""Brings the staged files and the large files of a store into a backup.

Files that the last complete backup names are not written to. Each backup gives its staged files new
tokens. A large file is only replaced as a whole, by a rename.
"""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fsmount.errors import Damaged, NoSuchInode, NotABackup
from fsmount.folder import readable
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.bodies import KeptBody, load_sums
from fsmount.store.packs.pack import read_entry
from fsmount.store.packs.staging import Staging
from fsmount.store.transfer.backup_packs import Vanished, is_as_left, keep_mtime, opened
from fsmount.store.transfer.tree import Progress

# The name in raw/ of a file that is to replace another one: the last id, which no object has.
_SCRATCH = 0xFFFFFFFF
# Descriptors that stay free beside those of staged files.
_SPARE = 200


def writer_for(identity: str) -> int:
    """The writer of all staged files in backups of the store with this uuid.

    So the next start of a restored store knows what a killed backup left in ``staging/``: files of
    the last writer that no row names.
    """
    digest = hashlib.sha256(identity.encode()).digest()
    return 1 + int.from_bytes(digest[:4], "little") % ((1 << 31) - 1)


@dataclass
class FileCopier:
    """Copies the files of one snapshot that lie outside of packs.

    store, target : the store, and the paths of the backup.
    dest : the path of the backup, for people.
    disk : system calls that change the backup.
    staging : gives out the tokens of the backup.
    needed : SHA-256 of each file in ``raw/`` that the last complete backup names, by object id.
    reread : whether to copy large files again whose size and mtime are equal.
    progress : called with the files and bytes that are done.
    problems : (path, reason) for each damaged file of the store.
    copied : bytes that were copied.
    """

    store: StoreFiles
    target: Layout
    dest: Path
    disk: Disk
    staging: Staging
    needed: Mapping[int, bytes]
    reread: bool
    progress: Progress
    problems: list[tuple[str, str]] = field(default_factory=list)
    copied: int = 0

    def bring_staged(self, index: Index, held: Mapping[int, int]) -> None:
        """Copy the staged files that `index` names, and let their rows name the copies.

        `held` is the result of :func:`held`. Raises :class:`Vanished`, OSError.
        """
        for node in index.staged_inodes():
            assert node.staged is not None
            token = self.staging.create()
            try:
                if node.staged in held:
                    size = self._copy(held[node.staged], self.staging.path(token))
                else:
                    with opened(self.store.staging.path(node.staged)) as source:
                        size = self._copy(source, self.staging.path(token))
            except FileNotFoundError as error:
                self.staging.remove(token)
                if not self._is_staged(node.ino, node.staged):
                    raise Vanished(f"staging/{node.staged}") from error
                what = readable(str(self.store.staging.path(node.staged)))
                self.problems.append((what, "the staged file is missing"))
                continue
            index.stage(node.ino, token, size)
        self.disk.fsync_folder(self.target.staging)

    def _is_staged(self, ino: int, token: int) -> bool:
        """Whether the index of the store still names a staged file."""
        try:
            return self.store.index.inode(ino).staged == token
        except NoSuchInode:
            return False

    def _copy(self, source: int, path: Path) -> int:
        """Copy an open file, with its mtime, to an empty one and force it. Return the bytes."""
        info = os.fstat(source)
        fd = self.disk.open(path, os.O_RDWR)
        try:
            size = self.disk.copy(source, fd, info.st_size)
            self.disk.fsync(fd)
            keep_mtime(self.disk, fd, info.st_mtime_ns)
        finally:
            self.disk.close(fd)
        self.copied += size
        self.progress(1, size)
        return size

    def bring_kept(self, index: Index, numbers: Mapping[int, int]) -> None:
        """Copy large files, and compare each new copy with its sums.

        `numbers` has the number of each pack of the store in the backup. Raises :class:`Vanished`,
        :class:`NotABackup`, :class:`Damaged`, OSError.
        """
        for number, sha256 in index.kept():
            origin, place = self.store.layout.kept(number), self.target.kept(number)
            if self.needed.get(number, sha256) != sha256:
                why = f"it shows another past of this store: raw/{place.name} differs"
                raise NotABackup(self.dest, reason=why)
            try:
                with opened(origin) as source:
                    if not self.reread and is_as_left(place, os.fstat(source)):
                        self.progress(1, os.fstat(source).st_size)
                        continue
                    scratch = self.target.kept(_SCRATCH)
                    self.disk.unlink(scratch)
                    self.disk.close(self.disk.create(scratch))
                    self._copy(source, scratch)
            except FileNotFoundError as error:
                if self.store.index.known_object(number) is None:
                    raise Vanished(f"raw/{origin.name}") from error
                self.problems.append((readable(str(origin)), "the file is missing"))
                continue
            if self._is_verified(index.object(number), numbers, scratch):
                self.disk.rename(scratch, place)
        self.disk.fsync_folder(self.target.raw)

    def _is_verified(self, found: Object, numbers: Mapping[int, int], scratch: Path) -> bool:
        """Compare the copy of a large file with the sums in its entry; whether it should count.

        Notes damage of the store: then the copy counts only if the backup has none. Raises
        :class:`Damaged` if only the copy is damaged.
        """
        try:
            pack = self.target.pack(numbers[found.pack])
            sums = load_sums(read_entry(pack, found.offset, found.length).payload)
        except Damaged:
            # The copier of packs has noted it.
            return found.id not in self.needed
        try:
            KeptBody(scratch, found.size, sums).verify()
        except Damaged:
            origin = self.store.layout.kept(found.id)
            try:
                KeptBody(origin, found.size, sums).verify()
            except Damaged as error:
                self.problems.append((readable(str(origin)), readable(str(error))))
                return found.id not in self.needed
            raise
        return True


@contextmanager
def held(store: StoreFiles) -> Iterator[dict[int, int]]:
    """Hold all staged files open in the block: token -> descriptor. Raises OSError.

    A file that is removed meanwhile can still be read. Files beyond the limit of descriptors are
    left out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = soft if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    with ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        files: dict[int, int] = {}
        for token in store.staging.tokens()[: max(0, most - _SPARE)]:
            with suppress(FileNotFoundError):
                files[token] = undo.enter_context(opened(store.staging.path(token)))
        yield files
