"""What the page knows of all pictures, while the store changes."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index, Object
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store
from fsmount.web import table
from fsmount.web.table import Pictures, Table

NOW = 1_700_000_000 * 10**9


class Written:
    """A store whose rows tests write; its pictures cannot be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = Index(Layout(root).index, Disk())

    def folder(self, name: bytes, above: int = ROOT) -> int:
        more: dict[str, Any] = {"uid": 0, "gid": 0, "now_ns": NOW}
        return self.index.create(above, name, mode=stat.S_IFDIR | 0o755, **more).ino

    def picture(self, folder: int, name: bytes, stored: int | None = 9000) -> int:
        """Add a picture that takes so many bytes; None for one that is not encoded."""
        number = self.index.next_object_id()
        made = self.index.create(
            folder,
            name,
            mode=stat.S_IFREG | 0o644,
            uid=0,
            gid=0,
            now_ns=NOW,
            staged=10**6 + number,
            size=100_000,
        )
        if stored is not None:
            self.encode(made.ino, stored)
        return made.ino

    def encode(self, ino: int, stored: int) -> None:
        number = self.index.next_object_id()
        body = Object(number, "delta", 1, 0, stored, 100_000, b"%032d" % number, 1)
        self.index.add_object(body)
        staged = self.index.inode(ino).staged
        assert staged is not None
        self.index.encode(ino, staged, number, 100_000)


@pytest.fixture
def written(root: Path) -> Iterator[Written]:
    made = Written(root)
    yield made
    made.index.close()


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_FRESH_S", 0.0)


def told(pictures: Pictures) -> list[tuple[str, int, bool]]:
    """(local time, bytes, busy) of each picture."""
    rows = zip(pictures.wall_us, pictures.stored, pictures.busy, strict=True)
    return [
        (f"{int(at) // 60_000_000 // 60 % 24:02}:{int(at) // 60_000_000 % 60:02}", int(n), bool(b))
        for at, n, b in rows
    ]


async def test_in_order_of_time_not_of_names_made(written: Written) -> None:
    one, two = written.folder(b"b"), written.folder(b"a")
    written.picture(one, b"2026-03-12T10-00-00.png")
    written.picture(two, b"2026-03-12T09-00-00.png", 10)
    written.picture(one, b"notes.txt")
    with open_read_store(written.root) as store:
        known = Table(store)
        assert not known.is_ready
        found = await known.pictures()
        assert known.is_ready
        assert told(found) == [("09:00", 10, False), ("10:00", 9000, True)]
        assert [found.folders[i] for i in found.folder] == [b"a", b"b"]


async def test_new_pictures_and_encoded_ones_appear(written: Written) -> None:
    folder = written.folder(b"desk")
    ino = written.picture(folder, b"2026-03-12T09-00-00.png", None)
    with open_read_store(written.root) as store:
        known = Table(store)
        first = await known.pictures()
        assert told(first) == [("09:00", 100_000, True)]
        assert first.staged.all()
        assert await known.pictures() is first, "nothing was read again"
        written.encode(ino, 200)
        written.picture(folder, b"2026-03-12T08-00-00.png", 5000)
        second = await known.pictures()
        assert second.number != first.number
        assert told(second) == [("08:00", 5000, True), ("09:00", 200, False)]
        assert not second.staged.any()


async def test_equal_pictures_count_once(written: Written) -> None:
    folder = written.folder(b"desk")
    ino = written.picture(folder, b"2026-03-12T09-00-00.png", 9000)
    written.index.link(folder, b"2026-03-12T08-00-00.png", ino, NOW)
    with open_read_store(written.root) as store:
        found = await Table(store).pictures()
        # The one that came first brought it, though its time is later.
        assert told(found) == [("08:00", 0, False), ("09:00", 9000, True)]


async def test_deleted_pictures_and_those_of_desktops(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_ALL_AGAIN_S", 0.0)
    folder = written.folder(b"desk")
    gone, kept = b"2026-03-12T09-00-00.png", b"2026-03-12T10-00-00.png"
    written.picture(folder, gone)
    written.picture(folder, kept)
    written.picture(written.folder(b"files", written.folder(b".Trash-0")), kept)
    written.picture(written.folder(b".sh_thumbnails", folder), kept)
    with open_read_store(written.root) as store:
        known = Table(store)
        assert [row[0] for row in told(await known.pictures())] == ["09:00", "10:00"]
        written.index.put_in_trash([(folder, gone, b"desk/" + gone)], NOW)
        assert [row[0] for row in told(await known.pictures())] == ["10:00"]
        written.index.rename(ROOT, b"desk", ROOT, b"screen", NOW)
        found = await known.pictures()
        assert [found.folders[i] for i in found.folder] == [b"screen"]


async def test_many_names_are_read_again_in_part(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_AGAIN", 3)
    folder = written.folder(b"desk")
    for minute in range(10):
        written.picture(folder, b"2026-03-12T09-%02d-00.png" % minute)
    with open_read_store(written.root) as store:
        known = Table(store)
        assert len((await known.pictures()).cookie) == 10
        for minute in range(10, 15):
            written.picture(folder, b"2026-03-12T09-%02d-00.png" % minute, 7)
        found = await known.pictures()
        assert [row[0] for row in told(found)] == [f"09:{n:02}" for n in range(15)]
        assert len(set(found.cookie.tolist())) == 15
        assert [row[1] for row in told(found)] == [9000] * 10 + [7] * 5
