"""Queries for retention: the trash of the store, and all rows of objects in columns.

The trash is a folder without an inode, of the number TRASH. No folder shows it, and a mount never
does. A name in it is the time of the deletion, in ns since 1970 with 20 digits, a slash, and the
path that the file had. So names are in the order of their deletion, and the copy of the index has
them like all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fsmount.store.index import kinds
from fsmount.store.index.objects import TRIMMED, Objects
from fsmount.store.index.schema import OBJECT, PAGE, TRASH, Inode, object_of

_DIGITS = 20
# Condition on an inode `i`: all its names are in the trash.
TRASH_ONLY = (
    f"i.ino IN (SELECT ino FROM dirents WHERE folder = {TRASH}) AND i.nlink ="
    f" (SELECT count(*) FROM dirents d WHERE d.ino = i.ino AND d.folder = {TRASH})"
)


class Trashed(NamedTuple):
    """A name in the trash. `deleted_ns` is in ns since 1970, `path` the path that it had."""

    deleted_ns: int
    path: bytes

    @property
    def name(self) -> bytes:
        """The name in the folder TRASH."""
        return b"%0*d/%s" % (_DIGITS, self.deleted_ns, self.path)


def trashed(name: bytes) -> Trashed:
    """Return what a name in the folder TRASH means."""
    when, _, path = name.partition(b"/")
    return Trashed(int(when) if when.isdigit() else 0, path)


class ObjectRow(NamedTuple):
    """Columns of an object: `kept` are the bytes of its file in ``raw/``, others as the table."""

    id: int
    pack: int
    offset: int
    length: int
    kept: int
    uses: int
    has_layer: int


class Trash(Objects):
    """The trash of the store, and columns of all objects."""

    def put_in_trash(self, names: Sequence[tuple[int, bytes, bytes]], now_ns: int) -> None:
        """Move names of files to the trash: (folder, name, path of the name). One transaction.

        They get the time `now_ns`, in ns since 1970, or one just after the newest name there, so
        that no two names are equal.
        """
        with self.transaction(deletes=True):
            newest = self._one("SELECT max(name) FROM dirents WHERE folder = ?", TRASH)
            if newest is not None and newest[0] is not None:
                now_ns = max(now_ns, trashed(newest[0]).deleted_ns + 1)
            for folder, name, path in names:
                self._run(
                    "UPDATE dirents SET folder = ?, name = ? WHERE folder = ? AND name = ?",
                    (TRASH, Trashed(now_ns, path).name, folder, name),
                )
            for folder in {folder for folder, _, _ in names}:
                self._touch_folder(folder, now_ns)

    def in_trash(self) -> Iterator[tuple[Trashed, Inode]]:
        """All names in the trash, the oldest first. Other changes may happen meanwhile."""
        return ((trashed(name), inode) for name, inode in self.by_name(TRASH))

    def in_trash_until(self, last_ns: int) -> list[tuple[bytes, int]]:
        """The names in the trash that were deleted at `last_ns` or before, each with 0 bytes."""
        end = b"%0*d" % (_DIGITS, max(0, last_ns + 1))
        rows = self._all(
            "SELECT name FROM dirents WHERE folder = ? AND name < ? ORDER BY name",
            TRASH,
            end,
            of=kinds.BLOB,
        )
        return [(row[0], 0) for row in rows]

    def sizes_in_trash(self) -> Iterator[tuple[bytes, int]]:
        """As :meth:`trash_bytes`, a page at a time: for callers that need only the oldest."""
        seen: set[int] = set()
        for name, inode in self.by_name(TRASH):
            found = None if inode.object_id is None else self.known_object(inode.object_id)
            if found is None:
                yield name, inode.size
            else:
                nbytes = found.size if found.is_kept else found.length
                yield name, 0 if found.id in seen else nbytes
                seen.add(found.id)

    def trash_bytes(self) -> list[tuple[bytes, int]]:
        """All names in the trash, the oldest first, and the bytes of the entry of each file.

        Equal files count once. These are bytes that the trash holds at most: other files may need
        the pixels of an entry.
        """
        found: list[tuple[bytes, int]] = []
        seen: set[int] = set()
        for name, object_id, nbytes in self._all(
            "SELECT d.name, coalesce(i.object, 0), coalesce(max(o.length, CASE WHEN o.kind = 'raw'"
            " THEN o.size ELSE 0 END), i.size) FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " LEFT JOIN objects o ON o.id = i.object WHERE d.folder = ? ORDER BY d.name",
            TRASH,
            of=kinds.BLOB_TWO_NUMBERS,
        ):
            found.append((name, 0 if object_id in seen else nbytes))
            seen.update({object_id} - {0})
        return found

    def trash_totals(self) -> tuple[int, int]:
        """Files that only the trash names, and the sum of their sizes in bytes."""
        row = self._one(
            "SELECT count(*), coalesce(sum(size), 0) FROM inodes i"
            f" WHERE i.nlink > 0 AND {TRASH_ONLY}"
        )
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def trash_uses(self) -> dict[int, int]:
        """Number of files that only the trash names, by the object that they show."""
        return dict(
            self._all(
                "SELECT i.object, count(*) FROM inodes i WHERE i.object IS NOT NULL"
                f" AND {TRASH_ONLY} GROUP BY i.object",
                of=kinds.TWO_NUMBERS,
            )
        )

    def pruned(self) -> tuple[int, int, int] | None:
        """The last run of the policy: time in ns since 1970, files that went, and their bytes."""
        keys = ("pruned:at", "pruned:files", "pruned:bytes")
        statement = "SELECT value FROM meta WHERE key = ?"
        at, files, nbytes = (self._one(statement, key, of=kinds.NUMBER) for key in keys)
        return (
            None if at is None or files is None or nbytes is None else (at[0], files[0], nbytes[0])
        )

    def set_pruned(self, at_ns: int, files: int, nbytes: int) -> None:
        """Record a run of the policy; see :meth:`pruned`."""
        values = {"pruned:at": at_ns, "pruned:files": files, "pruned:bytes": nbytes}
        with self.transaction():
            for row in values.items():
                self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def inodes_with(self, name: bytes) -> set[int]:
        """Inodes that have an extended attribute."""
        rows = self._all("SELECT ino FROM xattrs WHERE name = ?", name, of=kinds.NUMBER)
        return {row[0] for row in rows}

    def object_rows(self) -> Iterator[list[ObjectRow]]:
        """Columns of all objects, by id, a page at a time."""
        last = 0
        while rows := self._all(
            "SELECT id, pack, offset, length, CASE WHEN kind = 'raw' AND length < size THEN size"
            " ELSE 0 END, uses, kind IN ('key', 'delta') FROM objects WHERE id > ?"
            " ORDER BY id LIMIT ?",
            last,
            PAGE,
            of=kinds.SEVEN_NUMBERS,
        ):
            yield [ObjectRow(*row) for row in self._ascending(rows, last)]
            last = rows[-1][0]

    def needs_of_used(self) -> Iterator[tuple[list[int], list[bytes]]]:
        """Ids of the objects that files show, and their packed needs, a page at a time."""
        return self._needs("uses > 0")

    def needs_of_frames(self) -> Iterator[tuple[list[int], list[bytes]]]:
        """Ids of all frames, shown or not, and their packed needs, a page at a time."""
        return self._needs("kind IN ('key', 'delta')")

    def _needs(self, condition: str) -> Iterator[tuple[list[int], list[bytes]]]:
        last = 0
        while rows := self._all(
            f"SELECT id, needs FROM objects WHERE id > ? AND {condition} ORDER BY id LIMIT ?",
            last,
            PAGE,
            of=kinds.NUMBER_BLOB,
        ):
            rows = self._ascending(rows, last)
            yield [row[0] for row in rows], [row[1] for row in rows]
            last = rows[-1][0]

    # -- objects that no file shows, without tiles that nobody takes

    def trim_objects(self, trimmed: Sequence[int]) -> None:
        """Record that entries of objects that no file shows have lost tiles that nobody takes.

        They keep only their layers, without a hash, and no new frame may take pixels from them. The
        same holds for other objects that no file shows and that need one of them.
        """
        lost = set(trimmed)
        with self.transaction():
            for row in self._all(f"SELECT {OBJECT} FROM objects WHERE uses <= 0", of=kinds.OBJECT):
                found = object_of(row)
                if found.id in lost or lost.intersection(found.needs):
                    self._run(
                        "UPDATE objects SET needs = layer, sha256 = x'' WHERE id = ?", (found.id,)
                    )
                    self._run("DELETE FROM signatures WHERE object = ?", (found.id,))

    def trimmed(self) -> dict[int, int]:
        """For each object that was looked at, how many objects needed it then."""
        statement = "SELECT key, value FROM meta WHERE key GLOB ?"
        rows = self._all(statement, TRIMMED + "*", of=kinds.TEXT_NUMBER)
        return {int(key.removeprefix(TRIMMED)): int(value) for key, value in rows}

    def set_trimmed(self, looked: Mapping[int, int]) -> None:
        """Record how many objects need each object that was looked at.

        By itself this does not count as a change of the index: its copy does not have these rows.
        """
        changed = self.changed
        with self.transaction():
            for number, count in looked.items():
                row = TRIMMED + str(number), count
                self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
        self.changed = changed
