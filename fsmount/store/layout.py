"""Where things lie in a store's folder."""

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
        """Format version, uuid; for people and programs."""
        return self.root / CONFIG

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
