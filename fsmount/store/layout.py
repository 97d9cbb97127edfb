"""The paths inside the folder of a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG = "fsmount.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside a store."""

    root: Path

    @property
    def config(self) -> Path:
        """Format version and uuid, for people and programs."""
        return self.root / CONFIG

    @property
    def index(self) -> Path:
        """The SQLite database."""
        return self.root / "index.sqlite"

    @property
    def index_shared(self) -> Path:
        """Memory that the connections of SQLite share.

        SQLite makes it from the log if it is missing.
        """
        return self.root / "index.sqlite-shm"

    @property
    def packs(self) -> Path:
        """Folder of packs."""
        return self.root / "packs"

    @property
    def staging(self) -> Path:
        """Folder of staged files: files that are not encoded yet."""
        return self.root / "staging"

    @property
    def raw(self) -> Path:
        """Folder of large files that are kept verbatim. Their names are object ids."""
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
        """Number of times the store was opened for writing.

        It tells an old index from the newest one.
        """
        return self.root / "opened"

    @property
    def reserve(self) -> Path:
        """Reserved space that allows deletions on a full disk."""
        return self.root / "reserve"

    @property
    def lost(self) -> Path:
        """Folder of files that the index did not know when it was perhaps not the newest one."""
        return self.root / "lost"

    @property
    def names_copy(self) -> Path:
        """Copy of the rows of the index, from some time ago."""
        return self.packs / "names.gz"

    @property
    def second_entries(self) -> Path:
        """Second copies of entries, which earlier builds wrote."""
        return self.packs / "second.entries"

    @property
    def elsewhere(self) -> Path:
        """The record of packs that are at a URL only."""
        return self.root / "elsewhere.json"

    @property
    def coming_pack(self) -> Path:
        """A pack that comes back from a URL, until all of it is there."""
        return self.root / "coming.zip"

    def parity(self, number: int) -> Path:
        """Path of the parity of a pack."""
        return self.packs / f"{number:08d}.parity"

    @property
    def copies(self) -> tuple[str, str]:
        """Names of the files in ``packs/`` that belong to no pack."""
        return self.names_copy.name, self.second_entries.name

    def pack(self, number: int) -> Path:
        """Path of a pack."""
        return self.packs / f"{number:08d}.zip"

    def kept(self, object_id: int) -> Path:
        """Path of a large file that is kept verbatim."""
        return self.raw / f"{object_id:08x}"
