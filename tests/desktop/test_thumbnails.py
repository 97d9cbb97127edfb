"""Thumbnails of a store. A folder with the same files stands for its mountpoint."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fsmount.desktop import thumbnails
from fsmount.desktop.scaling import scale
from fsmount.desktop.thumbnail_files import FAILED, Thumbnails, file_uri, mtime_text, shared_uri
from fsmount.desktop.thumbnails import Made, Thumbnailer, pictures
from fsmount.errors import DiskFull, FsmountError
from fsmount.store.frames import jobs
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.tree import find
from tests.support.encoding import Inline, put
from tests.support.frames import png, screens
from tests.support.packs import drop_parity
from tests.support.trees import import_into, make_pictures, make_store

SOURCE = ("in/00.png", "in/01.png", "in/02.png")


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_store(tmp_path / "store", monkeypatch)


@pytest.fixture(name="place")
def mountpoint(tmp_path: Path) -> Path:
    """The folder that stands for the mountpoint. It has three pictures."""
    make_pictures(tmp_path / "mnt" / "in")
    return tmp_path / "mnt"


async def made(
    root: Path,
    place: Path,
    *paths: bytes,
    kinds: Sequence[str] = ("normal", "large"),
    shared: bool = False,
    report: Callable[[bytes], None] = lambda path: None,
) -> Made:
    """Do the work of `fsmount thumbs`."""
    done = []
    with open_read_store(root) as opened:
        async with opened.running(count=1) as store:
            wanted = pictures(store, paths or (b"",))
            thumbnailer = Thumbnailer(
                store,
                place,
                Inline(1),  # type: ignore[arg-type]
                lambda files, count: done.append(files),
                kinds=kinds,
                shared=shared,
                report=report,
            )
            await thumbnailer.make(wanted)
    assert sum(done) == len(wanted)
    return thumbnailer.summary


def of(place: Path, name: str, *, shared: bool = False) -> Thumbnails:
    """The thumbnails of a file as it is now."""
    path = place / name
    info = path.stat()
    if shared:
        folder, uri = path.parent / ".sh_thumbnails", shared_uri(os.fsencode(path.name))
    else:
        folder, uri = place.parent / "cache" / "thumbnails", file_uri(os.fsencode(path))
    return Thumbnails(folder, uri, mtime_text(info.st_mtime_ns), info.st_size, private=not shared)


def jobs_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Callable[..., Any], Any]]:
    """The jobs of workers from now on: the function and its first argument."""
    seen: list[tuple[Callable[..., Any], Any]] = []

    async def before(function: Callable[..., Any]) -> None:
        seen.append((function, Inline.args[0]))

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    return seen


async def test_every_picture_gets_its_thumbnails(root: Path, place: Path) -> None:
    (place / "notes.txt").write_text("a note")
    (place / "to a picture.png").symlink_to("in/00.png")
    await import_into(root, f"{place}/")
    reported: list[bytes] = []
    summary = await made(root, place, report=reported.append)
    assert summary == Made(pictures=3, thumbnails=6)
    assert sorted(reported) == sorted(map(os.fsencode, SOURCE))
    for name in SOURCE:
        found = of(place, name)
        for kind, size in (("normal", (128, 85)), ("large", (150, 100))):
            assert found.is_valid(kind)
            with Image.open(found.paths(kind)[0]) as image:
                assert image.size == size
    files = [path for path in (place.parent / "cache").rglob("*") if path.is_file()]
    assert len(files) == 6


async def test_the_order_is_that_of_encoding_and_each_picture_is_decoded_once(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names tell another order, and one picture has two names."""
    frames = screens(4)
    names = ["d.png", "b.png", "a.png", "c.png"]
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            for name, frame in [*zip(names, frames, strict=True), ("again.png", frames[1])]:
                put(store, name.encode(), png(frame))
                await store.drain()
            wanted = pictures(store)
    assert [one.path for one in wanted] == [b"d.png", b"again.png", b"b.png", b"a.png", b"c.png"]
    for name, frame in [*zip(names, frames, strict=True), ("again.png", frames[1])]:
        (place / name).write_bytes(png(frame))
    monkeypatch.setattr(thumbnails, "_AT_ONCE", 1)
    seen = jobs_seen(monkeypatch)
    summary = await made(root, place)
    assert summary == Made(pictures=5, thumbnails=10)
    assert [target.id for function, target in seen if function is jobs.render] == [1, 2, 3, 4]
    assert [data for function, data in seen if function is scale] == [*map(png, frames)]


async def test_valid_thumbnails_are_skipped_and_no_picture_is_read(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_into(root, f"{place}/")
    await made(root, place, kinds=["large"])
    seen = jobs_seen(monkeypatch)
    assert await made(root, place, kinds=["large"]) == Made(skipped=3)
    assert seen == []
    # Another size, and one that is outdated.
    os.utime(place / SOURCE[0], (1, 1))
    assert await made(root, place) == Made(pictures=3, thumbnails=4)
    assert await made(root, place) == Made(skipped=3)


async def test_a_part_of_the_store(root: Path, place: Path) -> None:
    make_pictures(place / "other")
    await import_into(root, f"{place}/")
    paths = (b"other", b"in/01.png", b"other/00.png")
    assert await made(root, place, *paths, kinds=["x-large"]) == Made(pictures=4, thumbnails=4)
    with pytest.raises(FsmountError, match="there is no 'nowhere'"):
        await made(root, place, b"nowhere")


async def test_pictures_that_are_not_encoded_yet(root: Path, place: Path) -> None:
    data = (place / SOURCE[0]).read_bytes()
    with open_store(root) as opened:
        put(opened, b"waiting.png", data)
    (place / "waiting.png").write_bytes(data)
    assert await made(root, place) == Made(pictures=1, thumbnails=2)


async def test_beside_the_pictures(root: Path, place: Path) -> None:
    await import_into(root, f"{place}/")
    assert await made(root, place, shared=True) == Made(pictures=3, thumbnails=6)
    for name in SOURCE:
        found = of(place, name, shared=True)
        assert found.is_valid("normal")
        assert found.is_valid("large")
    assert not (place.parent / "cache").exists()
    # These are no pictures of their own.
    await import_into(root, f"{place}/")
    assert await made(root, place, shared=True) == Made(skipped=3)
    assert await made(root, place, b"in/.sh_thumbnails") == Made()


async def test_what_is_in_the_trash_gets_none(root: Path, place: Path) -> None:
    shutil.copytree(place / "in", place / ".Trash-1000" / "files")
    await import_into(root, f"{place}/")
    assert await made(root, place) == Made(pictures=3, thumbnails=6)


async def test_what_is_no_picture_is_noted_and_not_read_again(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "broken.png").write_bytes((place / SOURCE[0]).read_bytes()[:500])
    await import_into(root, f"{place}/")
    summary = await made(root, place)
    assert (summary.pictures, summary.thumbnails) == (3, 6)
    ((path, reason),) = summary.problems
    assert path == "broken.png"
    assert reason.startswith("it is no picture that can be read (")
    assert of(place, "broken.png").is_valid(FAILED)
    seen = jobs_seen(monkeypatch)
    again = await made(root, place)
    assert [path for path, _ in again.problems] == ["broken.png"]
    assert (again.skipped, seen) == (3, [])
    # It is read again when it has changed.
    (place / "broken.png").write_bytes((place / SOURCE[1]).read_bytes())
    await import_into(root, f"{place}/")
    shutil.rmtree(place.parent / "cache" / "thumbnails" / "normal")
    os.utime(place / "broken.png", (7, 7))
    assert (await made(root, place, b"in")).pictures == 3


async def test_a_damaged_picture_does_not_stop_the_others(root: Path, place: Path) -> None:
    await import_into(root, f"{place}/")
    opened = open_read_store(root)
    inode = find(opened, b"in/02.png")
    assert inode is not None and inode.object_id is not None
    entry = opened.index.object(inode.object_id)
    pack = Layout(root).pack(entry.pack)
    opened.close()
    data = bytearray(pack.read_bytes())
    data[entry.offset + entry.length - 1] ^= 1
    pack.write_bytes(data)
    drop_parity(root)
    summary = await made(root, place)
    assert summary.pictures == 2
    assert [path for path, _ in summary.problems] == ["in/02.png"]
    # The store is to blame, not the picture.
    assert not of(place, "in/02.png").is_valid(FAILED)


async def test_a_picture_that_the_mount_does_not_have_or_show(root: Path, place: Path) -> None:
    await import_into(root, f"{place}/")
    (place / SOURCE[0]).unlink()
    summary = await made(root, place)
    assert summary.pictures == 2
    assert summary.problems == [(SOURCE[0], "No such file or directory")]


async def test_a_full_disk_ends_it(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_into(root, f"{place}/")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Thumbnails, "write", full)
    with pytest.RaisesGroup(DiskFull, flatten_subgroups=True):
        await made(root, place, b"in/00.png")


async def test_a_file_that_is_too_large_is_not_read(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_into(root, f"{place}/")
    monkeypatch.setattr(thumbnails, "_MOST_BYTES", 10)
    seen = jobs_seen(monkeypatch)
    summary = await made(root, place)
    assert (len(summary.problems), seen) == (3, [])
