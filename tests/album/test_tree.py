"""Albums as a tree: which photos are decoded, when and how often. FUSE takes no part."""

from __future__ import annotations

import gc
import stat
from pathlib import Path

import pytest
import trio.testing

from fsmount.album import reading
from fsmount.album import tree as tree_module
from fsmount.album.album import Album
from fsmount.album.document import PhotoRecord
from fsmount.album.tree import AlbumTree, source_of
from fsmount.errors import Damaged
from fsmount.work.workers import Workers
from tests.support.albums import create
from tests.support.encoding import open_files
from tests.support.photos import folder


@pytest.fixture(name="served")
def count_served(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of photos that are decoded, in order. A stand-in decodes them."""
    found: list[bytes] = []

    async def serve(album: Album, entry: PhotoRecord, workers: Workers) -> tuple[bytes, bool]:
        found.append(entry.shown)
        await trio.lowlevel.checkpoint()
        return album.head(entry).ljust(entry.served_bytes, b"."), True

    monkeypatch.setattr(reading, "render_photo", serve)
    return found


async def album(tmp_path: Path, count: int = 4) -> Path:
    place, _ = await create(folder(tmp_path / "in" / "a", count), tmp_path / "out")
    return place.xml


async def test_names_and_heads_decode_nothing(tmp_path: Path, served: list[bytes]) -> None:
    tree = AlbumTree(await album(tmp_path, 2), 1 << 24)
    async with tree.running():
        names = [name for name, _ in await tree.children(b"")]
        assert names == [b"IMG_0.JPG", b"IMG_1.JPG"]
        node = await tree.attributes(b"IMG_1.JPG")
        assert stat.S_IMODE(node.mode) & 0o222 == 0
        body = await tree.body(b"IMG_1.JPG")
        assert body.size == node.size
        assert b"fsmount maker note" in await body.pread(0, 4096)
        await tree.xattrs(b"IMG_1.JPG")
        assert served == []
        assert len(await body.pread(4000, 1 << 20)) == node.size - 4000
        assert served == [b"IMG_1.JPG"]


async def test_the_next_photo_is_ready_for_those_who_read_in_order(
    tmp_path: Path, served: list[bytes]
) -> None:
    tree = AlbumTree(await album(tmp_path), 1 << 24)

    async def read(number: int) -> None:
        body = await tree.body(b"IMG_%d.JPG" % number)
        await body.pread(0, body.size)
        await trio.testing.wait_all_tasks_blocked()

    async with tree.running():
        await read(0)
        assert served == [b"IMG_0.JPG", b"IMG_1.JPG"]
        await read(1)
        assert served == [b"IMG_0.JPG", b"IMG_1.JPG", b"IMG_2.JPG"]
        await read(3)
        await read(0)
        assert served == [b"IMG_0.JPG", b"IMG_1.JPG", b"IMG_2.JPG", b"IMG_3.JPG"]


async def test_many_readers_of_a_photo_wait_for_one(tmp_path: Path, served: list[bytes]) -> None:
    tree = AlbumTree(await album(tmp_path, 1), 1 << 24)
    async with tree.running(), trio.open_nursery() as nursery:
        for _ in range(5):
            body = await tree.body(b"IMG_0.JPG")
            nursery.start_soon(body.pread, 0, body.size)
    assert served == [b"IMG_0.JPG"]


@pytest.mark.parametrize(("albums", "photos"), [(2, 1000), (1000, 5)])
async def test_many_albums_are_not_all_kept_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, albums: int, photos: int
) -> None:
    monkeypatch.setattr(tree_module, "_MAX_OPEN_ALBUMS", albums)
    monkeypatch.setattr(tree_module, "_MAX_OPEN_PHOTOS", photos)
    source, out = folder(tmp_path / "in" / "a", 2), tmp_path / "out"
    await create(source, out)
    for number in range(9):
        for path in list(out.glob("a.*")):
            (out / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    tree = AlbumTree(out, 1 << 24)
    async with tree.running():
        held = await tree.body(b"0/IMG_0.JPG")
        for number in range(9):
            assert len(await tree.children(b"%d" % number)) == 2
            assert len(open_files(out)) <= 4
        # The tree has closed the album. The open body still reads all its bytes.
        data = await held.pread(0, held.size)
        assert data == await (await tree.body(b"0/IMG_0.JPG")).pread(0, held.size)
        del held
        gc.collect()
        assert len(open_files(out)) <= 3
    assert open_files(out) == []


async def test_what_is_not_there(tmp_path: Path) -> None:
    xml = await album(tmp_path, 1)
    for source, path in ((xml, b"none"), (xml.parent, b"none"), (xml.parent, b"a/none")):
        tree = AlbumTree(source, 1 << 20)
        async with tree.running():
            with pytest.raises(FileNotFoundError):
                await tree.attributes(path)
            with pytest.raises(FileNotFoundError):
                await tree.body(path)
    tree = AlbumTree(xml.parent, 1 << 20)
    async with tree.running():
        with pytest.raises(IsADirectoryError):
            await tree.body(b"")
        with pytest.raises(NotADirectoryError):
            await tree.children(b"a/IMG_0.JPG")


async def test_a_kept_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    source = folder(tmp_path / "in" / "a", 1)
    (source / "notes.txt").write_text("notes")
    place, _ = await create(source, tmp_path / "out")
    tree = AlbumTree(place.xml, 1 << 20)
    async with tree.running():
        body = await tree.body(b"notes.txt")
        assert await body.pread(1, 3) == b"ote"
        (place.files / "notes.txt").write_text("no")
        with pytest.raises(Damaged):
            await tree.body(b"notes.txt")


async def test_what_can_be_mounted(tmp_path: Path) -> None:
    xml = await album(tmp_path, 1)
    out = xml.parent
    assert source_of(xml) == source_of(out / "a.mp4") == source_of(out / "a") == xml
    assert source_of(out) == out
    assert source_of(tmp_path) == tmp_path
    assert source_of(tmp_path / "in") is None
    assert source_of(tmp_path / "none") is None
