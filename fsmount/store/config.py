"""The store's folder: where things lie, and its format."""

from __future__ import annotations

import errno
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsmount.errors import FormatUnsupported, NoStore, NotWritable, StoreExists
from fsmount.folder import Folder
from fsmount.store.disk import Disk
from fsmount.store.index import Index

FORMAT = 1
_CONFIG = "fsmount.json"
# What the system says where nothing may be written.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside a store."""

    root: Path

    @property
    def config(self) -> Path:
        """Format version, uuid; for people and programs."""
        return self.root / _CONFIG

    @property
    def index(self) -> Path:
        """The SQLite database."""
        return self.root / "index.sqlite"

    @property
    def index_shared(self) -> Path:
        """Memory that SQLite's connections share, made from the log; made anew if it is gone."""
        return self.root / "index.sqlite-shm"

    @property
    def packs(self) -> Path:
        """Folder of packs."""
        return self.root / "packs"

    @property
    def staging(self) -> Path:
        """Folder of files not encoded yet."""
        return self.root / "staging"

    @property
    def raw(self) -> Path:
        """Folder of large files kept verbatim, named by object id."""
        return self.root / "raw"

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        """All folders that a store has."""
        return self.packs, self.staging, self.raw

    @property
    def lock(self) -> Path:
        """The writer's lock."""
        return self.root / "lock"

    @property
    def opened(self) -> Path:
        """How often the store was opened for writing; tells an old index from the newest."""
        return self.root / "opened"

    @property
    def reserve(self) -> Path:
        """Space for deleting files from a full disk."""
        return self.root / "reserve"

    @property
    def lost(self) -> Path:
        """What an index did not know that may not have been the newest."""
        return self.root / "lost"

    @property
    def names_copy(self) -> Path:
        """The rows of the index as they were some time ago."""
        return self.packs / "names.gz"

    @property
    def second_entries(self) -> Path:
        """Second copies of the entries that many objects need."""
        return self.packs / "second.entries"

    @property
    def copies(self) -> tuple[str, str]:
        """What lies in ``packs/`` and is no pack."""
        return self.names_copy.name, self.second_entries.name

    def pack(self, number: int) -> Path:
        """One pack."""
        return self.packs / f"{number:08d}.zip"

    def kept(self, object_id: int) -> Path:
        """One large file kept verbatim."""
        return self.raw / f"{object_id:08x}"


def make(root: Path, disk: Disk) -> None:
    """A new empty store; raises :class:`StoreExists` unless `root` is new or an empty folder."""
    layout = Layout(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise StoreExists(root)
    disk.mkdir(root, parents=True)
    for folder in layout.folders:
        disk.mkdir(folder)
    identity = str(uuid.uuid4())
    now_ns = time.time_ns()
    Index.make(layout.index, identity=identity, uid=os.getuid(), gid=os.getgid(), now_ns=now_ns)
    disk.chmod(layout.index, 0o600)
    config = {
        "about": "A store of fsmount: mount it with `fsmount mount`. Pictures are in packs/.",
        "format": FORMAT,
        "uuid": identity,
    }
    # From the start, so that one that is missing later means that something else may be, too.
    disk.write_file(layout.opened, b"0\n")
    # Last, so that a folder with a config file is a whole store.
    disk.write_file(layout.config, json.dumps(config, indent=2).encode() + b"\n")


def enter(root: Path) -> Folder:
    """The folder of a store, open; raises :class:`NoStore`, OSError."""
    try:
        return Folder(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoStore(root) from error


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Where the system refuses to write inside the block, :class:`NotWritable` is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        raise NotWritable(root, reason=f"{where}{error.strerror}") from error


def read(root: Path) -> dict[str, Any]:
    """The config; raises :class:`NoStore`, :class:`FormatUnsupported`, or OSError where a disk
    does not let us look."""
    try:
        config = json.loads((root / _CONFIG).read_bytes())
        version = int(config["format"])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NoStore(root) from error
    except (ValueError, KeyError, TypeError) as error:
        raise NoStore(root) from error
    if version != FORMAT:
        raise FormatUnsupported(root, version=version, supported=FORMAT)
    return dict(config)


def is_store(path: Path) -> bool:
    """Whether there is a store at `path`, in whatever format and state."""
    return Layout(path).config.is_file()
