"""A real kernel mount of a read-only tree that is no store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsmount.errors import Damaged
from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.session import MountRequest, serve_in_background
from fsmount.mount.unmount import unmount
from fsmount.store.packs.bodies import RenderedBody

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse here"),
]

BODIES = {
    b"a.png": b"A" * 200_000,
    b"deep/b.png": b"b",
    b"deep/lazy.png": b"not measured before it is asked for",
}
TIME_NS = 1_700_000_000_123_456_789


@dataclass(frozen=True)
class Item:
    mode: int
    size: int | None
    uid: int = 12
    gid: int = 34
    mtime_ns: int = TIME_NS
    target: bytes | None = None


class Shown:
    """A tree with three files, a link, and a file that cannot be rendered."""

    def __init__(self, source: Path) -> None:
        self.source = source

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Item]]:
        if folder == b"deep":
            return [
                (b"b.png", Item(stat.S_IFREG | 0o444, 1)),
                (b"lazy.png", Item(stat.S_IFREG | 0o444, None)),
            ]
        return [
            (b"a.png", Item(stat.S_IFREG | 0o444, 200_000)),
            (b"broken.png", Item(stat.S_IFREG | 0o444, None)),
            (b"deep", Item(stat.S_IFDIR | 0o755, 0)),
            (b"link", Item(stat.S_IFLNK | 0o777, 1, target=b"deep/b.png")),
        ]

    async def attributes(self, path: bytes) -> Item:
        if not path:
            return Item(stat.S_IFDIR | 0o755, 0)
        if path == b"broken.png":
            raise Damaged("broken.png", reason="its chain is cut")
        folder, _, name = path.rpartition(b"/")
        for other, item in await self.children(folder):
            if other == name:
                size = len(BODIES[path]) if item.size is None else item.size
                return Item(item.mode, size, target=item.target)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    async def body(self, path: bytes) -> RenderedBody:
        return RenderedBody(BODIES[path])

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        return {b"user.colour": b"red", b"user.fsmount.kind": b"shown"} if path else {}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    folder, source = tmp_path / "place", tmp_path / "source"
    folder.mkdir()
    source.mkdir()
    request = MountRequest(source, folder, open_tree=lambda path, options: Shown(path))
    serve_in_background(request)
    yield folder
    if mounted_at(folder) is not None:
        unmount(folder)


def test_names_attributes_and_bytes(place: Path) -> None:
    assert sorted(os.listdir(place)) == ["a.png", "broken.png", "deep", "link"]
    info = (place / "a.png").stat()
    assert (info.st_size, info.st_uid, info.st_gid, info.st_mtime_ns) == (200_000, 12, 34, TIME_NS)
    assert stat.S_IMODE(info.st_mode) == 0o444
    assert (place / "a.png").read_bytes() == BODIES[b"a.png"]
    assert (place / "link").read_bytes() == b"b"
    assert sorted(path.name for path in place.rglob("*.png")) == [
        "a.png",
        "b.png",
        "broken.png",
        "lazy.png",
    ]
    assert (place / "deep" / ".." / "a.png").stat().st_ino == info.st_ino


def test_a_size_that_is_not_known_in_the_listing_is_right_when_asked(place: Path) -> None:
    with os.scandir(place / "deep") as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    assert sizes["lazy.png"] == len(BODIES[b"deep/lazy.png"])
    assert (place / "deep" / "lazy.png").read_bytes() == BODIES[b"deep/lazy.png"]


def test_what_cannot_be_rendered_is_an_error_and_not_empty(place: Path) -> None:
    with pytest.raises(OSError) as found:
        (place / "broken.png").read_bytes()
    assert found.value.errno == errno.EIO
    with pytest.raises(FileNotFoundError):
        (place / "nothing").stat()


def test_nothing_can_be_written(place: Path) -> None:
    for change in (
        (place / "new").touch,
        (place / "a.png").unlink,
        lambda: (place / "a.png").write_bytes(b""),
        lambda: (place / "a.png").chmod(0o600),
    ):
        with pytest.raises(OSError) as found:
            change()
        assert found.value.errno == errno.EROFS


def test_attributes_and_a_clean_end(place: Path) -> None:
    assert os.listxattr(place / "a.png") == ["user.colour"]
    assert os.getxattr(place / "a.png", "user.fsmount.kind") == b"shown"
    assert os.getxattr(place, "user.fsmount.staged") == b"0"
    with pytest.raises(OSError) as found:
        os.getxattr(place / "a.png", "user.fsmount.pid")
    assert found.value.errno == errno.ENODATA
    unmount(place)
    assert mounted_at(place) is None
