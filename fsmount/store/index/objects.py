"""Queries about bodies of files: staged files, objects, packs, and what the planner knows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from fsmount.errors import Damaged
from fsmount.store.index import kinds
from fsmount.store.index.schema import (
    KNOWN_TILES,
    OBJECT,
    PAGE,
    Object,
    object_of,
    pack_ids,
    unpack_ids,
)
from fsmount.store.index.tree import Tree

# Keys of meta: this and a pack's number, and this and a geometry.
_REPACKED = "repacked:"
_DICTIONARY = "dictionary:"
# Number of geometries whose tiles are kept. Pictures of windows may have thousands.
_MOST_GEOMETRIES = 64
# This and an object id: see trash.py.
TRIMMED = "trimmed:"


class Objects(Tree):
    """Objects, the packs that hold them, and the inodes that show them."""

    # -- bodies: staged files and objects

    def stage(self, ino: int, token: int, size: int) -> None:
        """Make the staged file `token`, of `size` bytes, the body of a file; its old body goes."""
        row = self.inode(ino)
        with self.transaction():
            self._run(
                "UPDATE inodes SET staged = ?, object = NULL, size = ? WHERE ino = ?",
                (token, size, ino),
            )
            self._use(row.object_id, -1)

    def encode(self, ino: int, token: int, object_id: int, size: int) -> bool:
        """Turn a row from staged to encoded; `size`: of the body in bytes.

        Returns False, and changes nothing, if `token` is not the body of the file any more.
        """
        with self.transaction():
            self._run(
                "UPDATE inodes SET staged = NULL, object = ?, size = ?"
                " WHERE ino = ? AND staged = ?",
                (object_id, size, ino, token),
            )
            changed = self._db.changes() > 0
            if changed:
                self._use(object_id, 1)
        return changed

    def purge(self, ino: int) -> int | None:
        """Remove the row of an inode without names.

        Returns the token of its staged file, which the caller removes.
        """
        row = self.inode(ino)
        with self.transaction(deletes=True):
            self._run("DELETE FROM xattrs WHERE ino = ?", (ino,))
            self._run("DELETE FROM inodes WHERE ino = ?", (ino,))
            self._use(row.object_id, -1)
        return row.staged

    def _use(self, object_id: int | None, change: int) -> None:
        if object_id is not None:
            self.let_go += change < 0
            self._run("UPDATE objects SET uses = uses + ? WHERE id = ?", (change, object_id))

    def add_object(self, new: Object) -> None:
        """Add the row of an appended object that no inode shows yet."""
        with self.transaction():
            self._run(
                f"INSERT INTO objects ({OBJECT}) VALUES (?,?,?,?,?,?,?,?,?,?,?,0)",
                (
                    new.id,
                    new.kind,
                    new.pack,
                    new.offset,
                    new.length,
                    new.size,
                    new.sha256,
                    new.depth,
                    pack_ids(new.needs),
                    pack_ids(new.layer),
                    new.reason,
                ),
            )

    def object(self, object_id: int) -> Object:
        """The row of an object. Raises :class:`Damaged` if there is none."""
        found = self.known_object(object_id)
        if found is None:
            raise Damaged(self.file, reason=f"object {object_id} is named but not there")
        return found

    def known_object(self, object_id: int) -> Object | None:
        """The row of an object, or None."""
        row = self._one(f"SELECT {OBJECT} FROM objects WHERE id = ?", object_id, of=kinds.OBJECT)
        return None if row is None else object_of(row)

    def objects(self, ids: Sequence[int]) -> list[Object]:
        """Several rows, in the order of `ids`."""
        return [self.object(i) for i in ids]

    def all_objects(self) -> Iterator[Object]:
        """Every object, by id, read a page at a time."""
        statement = f"SELECT {OBJECT} FROM objects WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._pages(statement, of=kinds.OBJECT)
        return map(object_of, rows)

    def unneeded_objects(self, needed: Container[int] | None = None) -> list[Object]:
        """Objects that no inode shows, and that no shown object needs.

        `needed` is the result of :meth:`needed_by_shown`, if the caller has it.
        """
        unused = self._all(f"SELECT {OBJECT} FROM objects WHERE uses <= 0", of=kinds.OBJECT)
        if not unused:
            return []
        if needed is None:
            needed = set[int]().union(*self.needed_by_shown())
        return [found for found in map(object_of, unused) if found.id not in needed]

    def needed_by_shown(self) -> Iterator[set[int]]:
        """Ids of the objects that shown objects need, one set for each PAGE of objects."""
        last = 0
        while rows := self._all(
            "SELECT id, needs FROM objects WHERE id > ? AND uses > 0 ORDER BY id LIMIT ?",
            last,
            PAGE,
            of=kinds.NUMBER_BLOB,
        ):
            yield {n for _, needs in self._ascending(rows, last) for n in unpack_ids(needs)}
            last = rows[-1][0]

    def unused_bytes(self) -> int:
        """Bytes of all objects that no inode shows, needed or not."""
        row = self._one(
            "SELECT sum(max(length, CASE WHEN kind = 'raw' THEN size ELSE 0 END))"
            " FROM objects WHERE uses <= 0"
        )
        return 0 if row is None or row[0] is None else int(row[0])

    def is_used(self, object_id: int) -> bool:
        """Whether an inode shows the object. The object need not have a row."""
        return self._one("SELECT 1 FROM inodes WHERE object = ? LIMIT 1", object_id) is not None

    def drop_objects(self, dropped: Sequence[int]) -> None:
        """Remove the rows of objects that :meth:`unneeded_objects` named.

        An object that is not shown, but whose own pixels others need, may need a dropped object to
        be rendered. It keeps only its layer, and loses its hash, so that no new file finds it. If
        its layer needs a dropped object, nothing shown needs the layer: only its record is left, as
        an anchor of others.
        """
        gone = set(dropped)
        with self.transaction(deletes=True):
            for object_id in dropped:
                self._run("DELETE FROM objects WHERE id = ?", (object_id,))
                self._run("DELETE FROM meta WHERE key = ?", (TRIMMED + str(object_id),))
            for row in self._all(f"SELECT {OBJECT} FROM objects WHERE uses <= 0", of=kinds.OBJECT):
                found = object_of(row)
                if gone.intersection(found.needs):
                    layer = pack_ids([number for number in found.layer if number not in gone])
                    self._run(
                        "UPDATE objects SET needs = ?1, layer = ?1, sha256 = x'' WHERE id = ?2",
                        (layer, found.id),
                    )

    def move_object(self, moved: Object) -> None:
        """Record a new location of an object's entry. It still renders to the same bytes."""
        with self.transaction():
            self._run(
                "UPDATE objects SET pack = ?, offset = ?, length = ? WHERE id = ?",
                (moved.pack, moved.offset, moved.length, moved.id),
            )

    def objects_in(self, pack: int) -> list[Object]:
        """The objects of a pack, by offset."""
        statement = f"SELECT {OBJECT} FROM objects WHERE pack = ? ORDER BY offset"
        rows = self._all(statement, pack, of=kinds.OBJECT)
        return [object_of(row) for row in rows]

    def find_object(self, sha256: bytes, size: int) -> int | None:
        """The id of an object with these bytes, or None."""
        row = self._one(
            "SELECT id FROM objects WHERE substr(sha256, 1, 8) = ? AND sha256 = ? AND size = ?",
            sha256[:8],
            sha256,
            size,
            of=kinds.NUMBER,
        )
        return None if row is None else int(row[0])

    def objects_of(self, sha256: bytes) -> list[int]:
        """The ids of all objects of files with this hash, in ascending order."""
        if not sha256:
            return []
        rows = self._all(
            "SELECT id FROM objects WHERE substr(sha256, 1, 8) = ? AND sha256 = ? ORDER BY id",
            sha256[:8],
            sha256,
            of=kinds.NUMBER,
        )
        return [row[0] for row in rows]

    def show(self, ino: int, object_id: int) -> None:
        """Let a new file without a body show an object."""
        with self.transaction():
            self._run("UPDATE inodes SET object = ? WHERE ino = ?", (object_id, ino))
            self._use(object_id, 1)

    def complete_object(self, found: Object) -> None:
        """Let an object of which only the layer was left be rendered: give it needs and hash."""
        with self.transaction():
            self._run(
                "UPDATE objects SET needs = ?, sha256 = ? WHERE id = ?",
                (pack_ids(found.needs), found.sha256, found.id),
            )

    def next_object_id(self) -> int:
        """The lowest id above all ids ever given."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'objects'", of=kinds.NUMBER)
        return 1 if row is None else int(row[0]) + 1

    def names_of(self, object_id: int) -> list[bytes]:
        """Paths of all files that show an object."""
        statement = "SELECT ino FROM inodes WHERE object = ? AND nlink > 0"
        rows = self._all(statement, object_id, of=kinds.NUMBER)
        return [self.path(row[0]) for row in rows]

    # -- packs

    def packs(self) -> dict[int, tuple[int, bool]]:
        """Packs by id: (committed length in bytes, sealed)."""
        rows = self._all("SELECT id, length, sealed FROM packs ORDER BY id", of=kinds.THREE_NUMBERS)
        return {row[0]: (row[1], bool(row[2])) for row in rows}

    def set_pack(self, pack: int, length: int, sealed: bool) -> None:
        """Record how far a pack is filled with committed entries."""
        with self.transaction():
            self._run(
                "INSERT OR REPLACE INTO packs (id, length, sealed) VALUES (?,?,?)",
                (pack, length, sealed),
            )

    def pack_fill(self) -> dict[int, int]:
        """Bytes of each pack that are entries of objects; packs without any are left out."""
        return dict(self._all("SELECT pack, sum(length) FROM objects GROUP BY pack"))

    def drop_pack(self, pack: int) -> None:
        """Forget a pack that holds no object."""
        with self.transaction(deletes=True):
            self._run("DELETE FROM packs WHERE id = ?", (pack,))
            self._run("DELETE FROM meta WHERE key = ?", (_REPACKED + str(pack),))

    def repacked(self) -> dict[int, int]:
        """For each pack the bytes from its start that `repack` wrote; ingest wrote the rest."""
        statement = "SELECT key, value FROM meta WHERE key GLOB ?"
        rows = self._all(statement, _REPACKED + "*", of=kinds.TEXT_NUMBER)
        return {int(key.removeprefix(_REPACKED)): int(value) for key, value in rows}

    def set_repacked(self, pack: int, length: int) -> None:
        """Record that `repack` wrote the first `length` bytes of a pack, or left them as they are.

        By itself this does not count as a change of the index: its copy does not have these rows.
        """
        changed = self.changed
        with self.transaction():
            self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_REPACKED + str(pack), length))
        self.changed = changed

    # -- dictionaries and known tiles, for the planner

    def set_dictionary(self, geometry: str, object_id: int) -> None:
        """Record which dictionary is the newest one of a geometry."""
        with self.transaction():
            row = _DICTIONARY + geometry, object_id
            self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def dictionary(self, geometry: str) -> int | None:
        """The newest dictionary of a geometry, or None. Its object may be dropped by now."""
        statement = "SELECT value FROM meta WHERE key = ?"
        row = self._one(statement, _DICTIONARY + geometry, of=kinds.NUMBER)
        return None if row is None else int(row[0])

    def upgrade(self) -> None:
        """Give the index of an earlier build the tables of this one."""
        if self._one("SELECT 1 FROM sqlite_schema WHERE name = 'known_tiles'") is not None:
            return
        changed = self.changed
        with self.transaction():
            self._run(KNOWN_TILES)
            # It had tile signatures object by object. Without them the next frame is a keyframe.
            self._run("DROP TABLE IF EXISTS signatures")
        self.changed = changed

    def save_tiles(self, geometry: str, data: bytes) -> None:
        """Keep the tiles that the planner knows of a geometry, in place of those from before.

        By itself this does not count as a change of the index: its copy does not have these rows.
        """
        changed = self.changed
        with self.transaction():
            self._run("DELETE FROM known_tiles WHERE geometry = ?", (geometry,))
            self._run("INSERT INTO known_tiles (geometry, data) VALUES (?,?)", (geometry, data))
            self._run(
                "DELETE FROM known_tiles WHERE id <="
                " (SELECT id FROM known_tiles ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (_MOST_GEOMETRIES,),
            )
        self.changed = changed

    def tiles_bytes(self) -> int:
        """Bytes of all that :meth:`save_tiles` kept."""
        row = self._one("SELECT coalesce(sum(length(data)), 0) FROM known_tiles", of=kinds.NUMBER)
        return 0 if row is None else int(row[0])

    def forget_tiles(self) -> None:
        """Remove all that :meth:`save_tiles` kept, and fill its pages with zeros."""
        if self._one("SELECT 1 FROM sqlite_schema WHERE name = 'known_tiles'") is not None:
            self._run("PRAGMA secure_delete = ON")
            with self.transaction():
                self._run("DELETE FROM known_tiles")

    def known_tiles(self, geometry: str) -> bytes:
        """The tiles that :meth:`save_tiles` kept of a geometry; b"" if there are none."""
        statement = "SELECT data FROM known_tiles WHERE geometry = ?"
        row = self._one(statement, geometry, of=kinds.BLOB)
        return b"" if row is None else bytes(row[0])
