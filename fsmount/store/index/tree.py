"""Inodes, their names and extended attributes."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from fsmount.errors import Damaged, NoSuchInode
from fsmount.store.index import kinds
from fsmount.store.index.database import Database
from fsmount.store.index.schema import COLUMNS, I_INODE, INODE, ROOT, TRASH, Inode

# Folders in a path: PATH_MAX allows no more than 2048.
_DEEPEST = 4096


class Tree(Database):
    """Queries about inodes, names and extended attributes."""

    # -- inodes and names

    def inode(self, ino: int) -> Inode:
        """The row of `ino`; raises :class:`NoSuchInode`."""
        row = self._one(f"SELECT {INODE} FROM inodes WHERE ino = ?", ino, of=kinds.INODE)
        if row is None:
            raise NoSuchInode(ino)
        return Inode(*row)

    def lookup(self, folder: int, name: bytes) -> Inode | None:
        """The inode that `name` in `folder` shows, or None."""
        row = self._one(
            f"SELECT {I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.name = ?",
            folder,
            name,
            of=kinds.INODE,
        )
        return None if row is None else Inode(*row)

    def children(
        self, folder: int, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, bytes, Inode]]:
        """Up to `limit` entries of a folder with cookies above `after`, in cookie order.

        An entry is (cookie, name, inode).
        """
        rows = self._all(
            f"SELECT d.cookie, d.name, {I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.cookie > ? ORDER BY d.cookie LIMIT ?",
            folder,
            after,
            limit,
            of=kinds.CHILD,
        )
        return [(row[0], row[1], Inode._make(row[2:])) for row in self._ascending(rows, after)]

    def next_names(self, folder: int, name: bytes, limit: int = 1) -> list[tuple[bytes, int]]:
        """The entries that follow `name` in name order: (name, ino)."""
        return self._all(
            "SELECT name, ino FROM dirents WHERE folder = ? AND name > ? ORDER BY name LIMIT ?",
            folder,
            name,
            limit,
            of=kinds.BLOB_NUMBER,
        )

    def previous_names(self, folder: int, name: bytes, limit: int = 1) -> list[tuple[bytes, int]]:
        """The entries before `name` in name order, nearest first: (name, ino)."""
        return self._all(
            "SELECT name, ino FROM dirents WHERE folder = ? AND name < ?"
            " ORDER BY name DESC LIMIT ?",
            folder,
            name,
            limit,
            of=kinds.BLOB_NUMBER,
        )

    def is_empty(self, folder: int) -> bool:
        """Whether a folder has no entries."""
        return self._one("SELECT 1 FROM dirents WHERE folder = ? LIMIT 1", folder) is None

    def folder_of(self, ino: int) -> tuple[int, bytes] | None:
        """One of the names of `ino`: (folder, name); None if it has none."""
        row = self._one(
            "SELECT folder, name FROM dirents WHERE ino = ? LIMIT 1", ino, of=kinds.NUMBER_BLOB
        )
        return None if row is None else (row[0], row[1])

    def path(self, ino: int) -> bytes:
        """One of the paths of `ino` from the root, without a leading slash; b"" for none.

        Of a file in the trash it is the path that it had. Raises Damaged if folders form a circle.
        """
        parts: list[bytes] = []
        while ino != ROOT:
            place = self.folder_of(ino)
            if place is None:
                return b""
            if len(parts) > _DEEPEST:
                raise Damaged(self.file, reason=f"the folders of inode {ino} form a circle")
            ino = place[0]
            if ino == TRASH:
                return place[1].partition(b"/")[2]
            parts.append(place[1])
        return b"/".join(reversed(parts))

    def path_of_name(self, folder: int, name: bytes) -> bytes:
        """The path of a name from the root; of a name in the trash, the path that it had.

        Raises Damaged if folders form a circle.
        """
        if folder == TRASH:
            return name.partition(b"/")[2]
        above = self.path(folder)
        return above + b"/" * bool(above) + name

    def _touch_folder(self, folder: int, now_ns: int, links: int = 0) -> None:
        self._run(
            "UPDATE inodes SET mtime = ?1, ctime = ?1, nlink = nlink + ?2 WHERE ino = ?3",
            (now_ns, links, folder),
        )

    def create(
        self,
        folder: int,
        name: bytes,
        *,
        mode: int,
        uid: int,
        gid: int,
        now_ns: int,
        rdev: int = 0,
        target: bytes | None = None,
        staged: int | None = None,
        size: int = 0,
    ) -> Inode:
        """Add an inode under a new name. The caller has checked that the name is free.

        Times are in ns since 1970.
        """
        links = 2 if stat.S_ISDIR(mode) else 1
        with self.transaction():
            self._run(
                "INSERT INTO inodes (mode, uid, gid, nlink, size, rdev, atime, mtime, ctime,"
                " staged, target) VALUES (?1,?2,?3,?4,?5,?6,?7,?7,?7,?8,?9)",
                (mode, uid, gid, links, size, rdev, now_ns, staged, target),
            )
            ino = self._db.last_insert_rowid()
            self._add_name(folder, name, ino)
            self._touch_folder(folder, now_ns, 1 if stat.S_ISDIR(mode) else 0)
            # Inside the transaction: on an error the caller removes the body, so no row may stay.
            return self.inode(ino)

    def _add_name(self, folder: int, name: bytes, ino: int) -> None:
        self._run("INSERT INTO dirents (folder, name, ino) VALUES (?,?,?)", (folder, name, ino))

    def _change_links(self, ino: int, change: int, now_ns: int) -> None:
        self._run(
            "UPDATE inodes SET nlink = nlink + ?, ctime = ? WHERE ino = ?", (change, now_ns, ino)
        )

    def link(self, folder: int, name: bytes, ino: int, now_ns: int) -> Inode:
        """Give a file one more name."""
        with self.transaction():
            self._add_name(folder, name, ino)
            self._change_links(ino, 1, now_ns)
            self._touch_folder(folder, now_ns)
            return self.inode(ino)

    def unlink(self, folder: int, name: bytes, now_ns: int) -> Inode:
        """Remove a name, also that of a folder, which then has nlink 0. The inode's row stays.

        Raises :class:`NoSuchInode`.
        """
        found = self.lookup(folder, name)
        if found is None:
            raise NoSuchInode(name)
        is_folder = stat.S_ISDIR(found.mode)
        with self.transaction(deletes=True):
            self._run("DELETE FROM dirents WHERE folder = ? AND name = ?", (folder, name))
            self._change_links(found.ino, -2 if is_folder else -1, now_ns)
            self._touch_folder(folder, now_ns, -1 if is_folder else 0)
            return self.inode(found.ino)

    def rename(
        self,
        folder: int,
        name: bytes,
        new_folder: int,
        new_name: bytes,
        now_ns: int,
        *,
        exchange: bool = False,
    ) -> Inode | None:
        """Move a name. Returns the file or empty folder that it replaced, or None.

        With `exchange` the two names change places. Raises :class:`NoSuchInode`.
        """
        moved = self.lookup(folder, name)
        other = self.lookup(new_folder, new_name)
        if moved is None:
            raise NoSuchInode(name)
        replaced = None
        with self.transaction(deletes=True):
            if exchange and other is not None:
                self._set_name(folder, name, other.ino)
                self._set_name(new_folder, new_name, moved.ino)
                self._change_links(other.ino, 0, now_ns)
                came, left = stat.S_ISDIR(other.mode), stat.S_ISDIR(moved.mode)
            else:
                if other is not None:
                    replaced = self.unlink(new_folder, new_name, now_ns)
                self._run(
                    "UPDATE dirents SET folder = ?, name = ? WHERE folder = ? AND name = ?",
                    (new_folder, new_name, folder, name),
                )
                came, left = False, stat.S_ISDIR(moved.mode)
            self._change_links(moved.ino, 0, now_ns)
            change = int(left) - int(came) if folder != new_folder else 0
            self._touch_folder(folder, now_ns, -change)
            self._touch_folder(new_folder, now_ns, change)
        return replaced

    def _set_name(self, folder: int, name: bytes, ino: int) -> None:
        self._run("UPDATE dirents SET ino = ? WHERE folder = ? AND name = ?", (ino, folder, name))

    def update(self, ino: int, **fields: int) -> None:
        """Set attributes: mode, uid, gid, size, atime_ns, mtime_ns, ctime_ns."""
        if not fields:
            return
        settings = ", ".join(f"{COLUMNS[field]} = ?" for field in fields)
        with self.transaction():
            self._run(f"UPDATE inodes SET {settings} WHERE ino = ?", (*fields.values(), ino))

    def orphans(self) -> list[Inode]:
        """Inodes that were unlinked while open when the last process ended."""
        rows = self._all(f"SELECT {INODE} FROM inodes WHERE nlink = 0", of=kinds.INODE)
        return [self._as_its_row(Inode(*row)) for row in rows]

    def staged_inodes(self) -> list[Inode]:
        """All inodes with a staged file."""
        rows = self._all(f"SELECT {INODE} FROM inodes WHERE staged IS NOT NULL", of=kinds.INODE)
        return [self._as_its_row(Inode(*row)) for row in rows]

    def _as_its_row(self, found: Inode) -> Inode:
        """Return `found`, read through a partial SQL index, if its row says the same.

        The caller removes orphans, so a damaged SQL index must not decide alone. Raises Damaged.
        """
        row = self._one(f"SELECT {INODE} FROM inodes WHERE ino = ?", found.ino)
        if row != found:
            raise Damaged(self.file, reason=f"inode {found.ino} is not what an index has of it")
        return found

    def inodes(self) -> Iterator[Inode]:
        """All inodes, by number."""
        statement = f"SELECT {INODE} FROM inodes WHERE ino > ? ORDER BY ino LIMIT ?"
        rows = self._pages(statement, of=kinds.INODE)
        return map(Inode._make, rows)

    def names(self) -> Iterator[tuple[int, bytes, int]]:
        """All entries in the order of their creation: (folder, name, ino)."""
        for _, *row in self._pages(
            "SELECT cookie, folder, name, ino FROM dirents"
            " WHERE cookie > ? ORDER BY cookie LIMIT ?",
            of=kinds.NAME,
        ):
            yield row[0], row[1], row[2]

    def files_by_creation(self, after: int = 0) -> Iterator[tuple[int, int, bytes, int]]:
        """Names of regular files in the order of their creation: (cookie, folder, name, mtime_ns).

        `after`: only names with higher cookies. A name that was moved keeps its cookie.
        """
        rows = self._pages(
            "SELECT d.cookie, d.folder, d.name, i.mode, i.mtime FROM dirents d"
            " JOIN inodes i ON i.ino = d.ino WHERE d.cookie > ? ORDER BY d.cookie LIMIT ?",
            of=kinds.FOLDER_NAME,
            after=after,
        )
        for cookie, folder, name, mode, mtime_ns in rows:
            if stat.S_ISREG(mode):
                yield cookie, folder, name, mtime_ns

    def named_files(self) -> Iterator[tuple[int, int, bytes, Inode]]:
        """Names of regular files in the order of their creation: (cookie, folder, name, inode)."""
        rows = self._pages(
            f"SELECT d.cookie, d.folder, d.name, {I_INODE} FROM dirents d"
            " JOIN inodes i ON i.ino = d.ino WHERE d.cookie > ? ORDER BY d.cookie LIMIT ?",
            of=kinds.NAMED_FILE,
        )
        for cookie, folder, name, *inode in rows:
            if stat.S_ISREG(inode[1]):
                yield cookie, folder, name, Inode._make(inode)

    def named(self, cookie: int) -> tuple[int, bytes, Inode] | None:
        """The entry with a cookie: (folder, name, inode), or None if it is gone."""
        row = self._one(
            f"SELECT d.folder, d.name, {I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.cookie = ?",
            cookie,
            of=kinds.CHILD,
        )
        return None if row is None else (row[0], row[1], Inode._make(row[2:]))

    def cookie_of(self, ino: int) -> tuple[int, int] | None:
        """The cookie of one of the names of a file, and its object (0: not encoded yet).

        None if it has no name outside of the trash.
        """
        row = self._one(
            "SELECT d.cookie, coalesce(i.object, 0) FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.ino = ? AND d.folder != ? ORDER BY d.cookie LIMIT 1",
            ino,
            TRASH,
            of=kinds.TWO_NUMBERS,
        )
        return None if row is None else (row[0], row[1])

    def by_name(self, folder: int) -> Iterator[tuple[bytes, Inode]]:
        """Entries of a folder in name order: (name, inode)."""
        for name, *inode in self._pages(
            f"SELECT d.name, {I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.name > ? ORDER BY d.name LIMIT ?",
            folder,
            of=kinds.NAMED_INODE,
            after=b"",
        ):
            yield name, Inode._make(inode)

    def walk(self, folder: int = ROOT, path: bytes = b"") -> Iterator[tuple[bytes, Inode]]:
        """All entries below `folder` in name order, folders first: (path, inode).

        Raises Damaged if folders form a circle.
        """
        # No recursion: folders may be nested deeper than Python's stack.
        opened = [(path, iter(self.by_name(folder)))]
        while opened:
            path, entries = opened[-1]
            found = next(entries, None)
            if found is None:
                opened.pop()
                continue
            name, entry = found
            if len(opened) > _DEEPEST:
                raise Damaged(self.file, reason=f"the folders in {path[:200]!r} form a circle")
            here = path + b"/" + name if path else name
            yield here, entry
            if stat.S_ISDIR(entry.mode):
                opened.append((here, iter(self.by_name(entry.ino))))

    # -- extended attributes

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """All stored extended attributes of an inode."""
        return dict(
            self._all("SELECT name, value FROM xattrs WHERE ino = ?", ino, of=kinds.TWO_BLOBS)
        )

    def all_xattrs(self) -> list[tuple[int, bytes, bytes]]:
        """Every stored extended attribute: (ino, name, value)."""
        return self._all("SELECT ino, name, value FROM xattrs ORDER BY ino, name", of=kinds.XATTR)

    def get_xattr(self, ino: int, name: bytes) -> bytes | None:
        """One attribute's value, or None."""
        row = self._one(
            "SELECT value FROM xattrs WHERE ino = ? AND name = ?", ino, name, of=kinds.BLOB
        )
        return None if row is None else row[0]

    def set_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Set or replace an attribute."""
        with self.transaction():
            self._run("INSERT OR REPLACE INTO xattrs VALUES (?,?,?)", (ino, name, value))

    def remove_xattr(self, ino: int, name: bytes) -> bool:
        """Remove an attribute. Returns whether it was there."""
        with self.transaction():
            self._run("DELETE FROM xattrs WHERE ino = ? AND name = ?", (ino, name))
            return self._db.changes() > 0
