"""Queries that find rows which contradict other rows, and the changes that repair makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fsmount.store.index import kinds
from fsmount.store.index.schema import I_INODE, INODE, IS_FOLDER, ROOT, TRASH, Inode, Object
from fsmount.store.index.trash import Trash

_CONTRADICTIONS = {
    "objects lie outside of the packs it knows": (
        "SELECT 1 FROM objects o LEFT JOIN packs p ON p.id = o.pack"
        " WHERE p.id IS NULL OR o.offset + o.length > p.length"
    ),
    "files show objects it counts as used less": (
        "SELECT 1 FROM (SELECT object, count(*) AS shown FROM inodes WHERE object IS NOT NULL"
        " GROUP BY object) s JOIN objects o ON o.id = s.object WHERE o.uses < s.shown"
    ),
    "files show objects it does not know": (
        "SELECT 1 FROM inodes i LEFT JOIN objects o ON o.id = i.object"
        " WHERE i.object IS NOT NULL AND o.id IS NULL"
    ),
    "names show files it does not know": (
        "SELECT 1 FROM dirents d LEFT JOIN inodes i ON i.ino = d.ino WHERE i.ino IS NULL"
    ),
    "it does not list all staged files": (
        "SELECT 1 FROM inodes NOT INDEXED WHERE staged IS NOT NULL AND ino NOT IN"
        " (SELECT ino FROM inodes INDEXED BY inodes_staged WHERE staged IS NOT NULL)"
    ),
}


class Audit(Trash):
    """Compares all rows with each other, and repairs them."""

    # -- repair

    def restore(
        self,
        inodes: Sequence[Inode],
        names: Sequence[tuple[int, bytes, int]],
        xattrs: Sequence[tuple[int, bytes, bytes]],
        objects: Sequence[Object],
        next_object: int,
    ) -> None:
        """Fill a new index. Link counts and use counts are computed from the rows."""
        with self.transaction():
            self._run("DELETE FROM inodes")
            for node in inodes:
                row = (node.ino, node.mode, node.uid, node.gid, node.nlink, node.size, node.rdev,
                       node.atime_ns, node.mtime_ns, node.ctime_ns, node.object_id, node.staged,
                       node.target)  # fmt: skip
                self._run(f"INSERT INTO inodes ({INODE}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
            for folder, name, ino in names:
                self._add_name(folder, name, ino)
            for values in xattrs:
                self._run("INSERT INTO xattrs VALUES (?,?,?)", values)
            for found in objects:
                self.add_object(found)
            self._run("DELETE FROM sqlite_sequence WHERE name = 'objects'")
            self._run("INSERT INTO sqlite_sequence VALUES ('objects', ?)", (next_object - 1,))
            self.recount()

    def recount(self) -> None:
        """Compute all link counts and use counts; remove inodes without a name."""
        with self.transaction():
            self._run(
                "DELETE FROM inodes WHERE ino != ? AND ino NOT IN (SELECT ino FROM dirents)",
                (ROOT,),
            )
            self._run("DELETE FROM xattrs WHERE ino NOT IN (SELECT ino FROM inodes)")
            self._run(
                "UPDATE inodes SET nlink = CASE WHEN (mode & 61440) = 16384 THEN 2 +"
                " (SELECT count(*) FROM dirents d JOIN inodes i ON i.ino = d.ino"
                "  WHERE d.folder = inodes.ino AND (i.mode & 61440) = 16384)"
                " ELSE (SELECT count(*) FROM dirents d WHERE d.ino = inodes.ino) END"
            )
            # One pass over all inodes: they have no SQL index by object.
            self._run("UPDATE objects SET uses = 0 WHERE uses != 0")
            self._run(
                "UPDATE objects SET uses = s.shown FROM (SELECT object, count(*) AS shown"
                " FROM inodes WHERE object IS NOT NULL GROUP BY object) s WHERE s.object = id"
            )

    def drop_bodies(self, inodes: Sequence[int], objects: Sequence[int]) -> None:
        """Remove all names of unreadable files, and objects that cannot be rendered."""
        with self.transaction(deletes=True):
            for ino in inodes:
                self._run("DELETE FROM dirents WHERE ino = ?", (ino,))
            for object_id in objects:
                self._run("DELETE FROM signatures WHERE object = ?", (object_id,))
                self._run("DELETE FROM objects WHERE id = ?", (object_id,))
            self.recount()

    # -- rows that contradict others, for `check`

    def object_ids(self) -> Iterator[int]:
        """The id of every object."""
        statement = "SELECT id FROM objects WHERE id > ? ORDER BY id LIMIT ?"
        for (number,) in self._pages(statement, of=kinds.NUMBER):
            yield number

    def shown(self, ids: set[int]) -> Iterator[tuple[int, bytes]]:
        """All names of files that show one of the objects `ids`: (object, path)."""
        for inode in self.inodes():
            if inode.object_id not in ids:
                continue
            for folder, name in self._all(
                "SELECT folder, name FROM dirents WHERE ino = ?", inode.ino, of=kinds.NUMBER_BLOB
            ):
                yield inode.object_id, self.path_of_name(folder, name)

    def dangling_names(self) -> list[bytes]:
        """Names without an inode or without a folder. The trash has no inode."""
        rows = self._all(
            "SELECT d.name FROM dirents d LEFT JOIN inodes i ON i.ino = d.ino"
            " LEFT JOIN inodes f ON f.ino = d.folder"
            f" WHERE i.ino IS NULL OR (d.folder != {TRASH} AND"
            f" (f.ino IS NULL OR NOT {IS_FOLDER % 'f'}))",
            of=kinds.BLOB,
        )
        return [row[0] for row in rows]

    def contradiction(self) -> str:
        """Why rows of the index seem to be missing, or "" if they do not. Reads all rows.

        Nothing may be deleted because such an index does not know it. The usual cause is a page
        that was written to the place of another.
        """
        for why, query in _CONTRADICTIONS.items():
            if self._one(query + " LIMIT 1") is not None:
                return why
        return ""

    def wrong_links(self) -> list[tuple[int, int, int]]:
        """Inodes with a wrong link count: (ino, nlink, right count)."""
        names = "(SELECT count(*) FROM dirents d WHERE d.ino = i.ino)"
        folders = (
            "(SELECT count(*) FROM dirents d JOIN inodes c ON c.ino = d.ino"
            f" WHERE d.folder = i.ino AND {IS_FOLDER % 'c'})"
        )
        return self._all(
            f"SELECT ino, nlink, wanted FROM (SELECT i.ino, i.nlink, CASE WHEN {IS_FOLDER % 'i'}"
            f" THEN iif(i.ino = {ROOT} OR {names} > 0, 2 + {folders}, 0)"
            f" ELSE {names} END AS wanted FROM inodes i) WHERE nlink != wanted"
        )

    def wrong_uses(self) -> list[tuple[int, int, int]]:
        """Objects with a wrong use count: (id, uses, right count)."""
        return self._all(
            "SELECT o.id, o.uses, coalesce(u.shown, 0) FROM objects o LEFT JOIN"
            " (SELECT object, count(*) AS shown FROM inodes WHERE object IS NOT NULL"
            "  GROUP BY object) u ON u.object = o.id WHERE o.uses != coalesce(u.shown, 0)"
        )

    def wrong_bodies(self) -> list[tuple[Inode, int | None]]:
        """Regular files without exactly one body, or whose object is absent or has another size.

        Each comes with the size of its object, or None if that is absent.
        """
        rows = self._all(
            f"SELECT o.size, {I_INODE} FROM inodes i LEFT JOIN objects o ON o.id = i.object"
            " WHERE (i.mode & 61440) = 32768 AND ((i.staged IS NULL) = (i.object IS NULL)"
            " OR (i.object IS NOT NULL AND o.size IS NOT i.size))",
            of=kinds.SIZED_INODE,
        )
        return [(Inode._make(row[1:]), row[0]) for row in rows]
