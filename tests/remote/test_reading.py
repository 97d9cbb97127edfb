"""Stores at a URL that are read in place: right bytes, few requests, each once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.errors import (
    FsmountError,
    NotPushed,
)
from fsmount.mount.attributes import Caller
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote import blocks, cached_store
from fsmount.remote.reading import remote_stores, stores_at
from fsmount.store.ingest import large
from fsmount.store.store import open_store
from tests.support.backups import FILES, MORE, WANTED
from tests.support.encoding import ino_of, put
from tests.support.remotes import (
    BLOCK,
    counted,
    objects_of,
    pushed,
    read_all,
    read_file,
    shown_in_place,
)
from tests.support.repacking import fill
from tests.support.trees import make_store

pytestmark = pytest.mark.usefixtures("small_blocks")


def place_of(url: str, caches: Path) -> Path:
    """The folder of the first mount of a URL."""
    return cached_store.folder_of(url, caches) / "0"


def test_all_bytes_are_equal(filled: Path, url: str, caches: Path) -> None:
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    trio.run(fill, filled, MORE)
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED | MORE


def test_nobody_else_can_read_the_cache(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    shown_in_place(url, caches)
    paths = [caches, *caches.rglob("*")]
    assert len(paths) > 12
    for path in paths:
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_is_listed_or_read_twice(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    calls: list[tuple[str, str]] = []
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED
    assert [name for name, _ in calls].count("list") == 1
    assert calls[0] == ("list", "state")
    # The second mount has all of it: it asks for the newest state, and that is the one it has.
    calls.clear()
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED
    staged = [each for each in calls if each[1].startswith("staged/")]
    assert calls == [("list", "state"), ("get", "state/000000000001"), *staged]
    # After a push of more, the index comes as its changed pages, and packs as their new bytes.
    before = set(objects_of(url))
    trio.run(fill, filled, MORE)
    pushed(filled, url)
    calls.clear()
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED | MORE
    new = set(objects_of(url)) - before
    assert {name for _, name in calls if name.startswith("index/")} <= new
    assert {name for call, name in calls if call == "get" and name.startswith("packs/")} <= new


def test_names_and_sizes_come_from_the_index(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    calls: list[tuple[str, str]] = []

    async def look() -> None:
        async with remote_stores(url, caches, budget=1 << 20, connect=counted(calls)) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            calls.clear()
            shown = {}
            handle = await filesystem.opendir(1)
            for _, name, found in await filesystem.readdir(handle, 2):
                shown[name] = found.size, found.blocks
            assert shown == {
                name: (len(data), -(-len(data) // 512)) for name, data in WANTED.items()
            }
            opened = await filesystem.open(
                ino_of(stores[""], b"staged"), os.O_RDONLY, Caller(0, 0, 0)
            )
            found = await filesystem.getattr(ino_of(stores[""], b"staged"))
            # The staged file is a hole on this disk, and not for programs.
            assert found.blocks == 1
            await filesystem.release(opened)

    trio.run(look)
    assert calls == []


def test_readers_of_one_picture_make_one_request(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    calls: list[tuple[str, str]] = []

    async def look() -> None:
        async with remote_stores(url, caches, budget=1 << 20, connect=counted(calls)) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            last = ino_of(stores[""], max(FILES))
            calls.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(read_file, filesystem, last)
            once = list(calls)
            assert once
            assert len(once) == len(set(once))
            await read_file(filesystem, last)
            assert calls == once

    trio.run(look)


def test_blocks_are_let_go_under_the_budget(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches, budget=2 * BLOCK) == WANTED
    packs = place_of(url, caches) / "store" / "packs"
    held = sum(path.stat().st_blocks * 512 for path in packs.iterdir())
    size = sum(path.stat().st_size for path in packs.iterdir())
    assert size > 8 * BLOCK
    assert held <= 2 * BLOCK
    # What a smaller budget finds on the disk goes, too.
    assert shown_in_place(url, caches) == WANTED
    assert shown_in_place(url, caches, budget=BLOCK) == WANTED
    assert sum(path.stat().st_blocks * 512 for path in packs.iterdir()) <= BLOCK


def test_rot_in_the_cache_is_noticed(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    store = place_of(url, caches) / "store"
    for path in [*(store / "packs").iterdir(), *(store / "raw").iterdir(), store / "index.sqlite"]:
        data = bytearray(path.read_bytes())
        for at in range(50, len(data), 1000):
            data[at] ^= 1
        path.write_bytes(data)
    calls: list[tuple[str, str]] = []
    assert shown_in_place(url, caches, connect=counted(calls)) == WANTED
    assert any(name.startswith("index/") for _, name in calls)
    assert any(name.startswith("packs/") for _, name in calls)


def test_what_a_killed_mount_leaves_is_used_or_freed(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    """Blocks without notes, notes without blocks, half an index: nothing of it is trusted."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    place = place_of(url, caches)
    first, *others = sorted((place / "store" / "packs").iterdir())
    for path in others:
        path.write_bytes(bytes(path.stat().st_size))
    (place / "blocks" / f"packs-{first.name}").unlink()
    (place / "state").unlink()
    (place / "store" / "index.sqlite").write_bytes(b"half")
    (place / "store" / "packs" / "00000099.zip").write_bytes(b"of another state")
    assert shown_in_place(url, caches, budget=1 << 30) == WANTED
    assert not (place / "store" / "packs" / "00000099.zip").exists()


def test_a_cache_of_another_store_is_emptied(
    filled: Path, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches) == WANTED
    shutil.rmtree(tmp_path / "remote")
    other = make_store(tmp_path / "other", monkeypatch)
    trio.run(fill, other, MORE)
    pushed(other, url)
    assert shown_in_place(url, caches) == MORE


def test_a_staged_file_of_an_older_state_is_not_shown(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    """A staged file keeps its number while a program writes to it."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    assert shown_in_place(url, caches)[b"staged"] == b"not encoded yet"
    (path,) = (filled / "staging").iterdir()
    path.write_bytes(b"written in place")
    with open_store(filled) as store:
        store.index.update(ino_of(store, b"staged"), size=16)
    pushed(filled, url)
    assert shown_in_place(url, caches)[b"staged"] == b"written in place"


def test_two_mounts_of_one_url(filled: Path, tmp_path: Path, caches: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)

    async def both() -> None:
        async with remote_stores(url, caches, budget=BLOCK) as one:
            assert await read_all(one[""]) == WANTED
            async with remote_stores(url, caches, budget=1 << 20) as two:
                assert await read_all(two[""]) == WANTED
                assert await read_all(one[""]) == WANTED

    trio.run(both)
    assert sorted(os.listdir(place_of(url, caches).parent)) == ["0", "1", "README"]


def test_stores_of_several_machines(
    filled: Path, url: str, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store(tmp_path / "other", monkeypatch)
    trio.run(fill, other, MORE)
    if url.startswith("file://"):
        (tmp_path / "remote").mkdir()
    pushed(filled, f"{url}/desk")
    pushed(other, f"{url}/a laptop".replace(" ", "%20"))
    wanted = {b"desk/" + name: data for name, data in WANTED.items()}
    wanted |= {b"a laptop/" + name: data for name, data in MORE.items()}
    assert shown_in_place(url, caches) == wanted
    assert shown_in_place(f"{url}/", caches) == wanted
    assert sorted(stores_at(f"{url}/desk")) == [""]


def test_nothing_was_pushed(url: str, caches: Path) -> None:
    with pytest.raises(NotPushed, match="nor to a folder directly below"):
        shown_in_place(url, caches)


def test_a_full_disk_shrinks_the_cache(
    filled: Path, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    real = blocks.Files.write
    failures = [3]

    def write(files: blocks.Files, first: blocks.Block, data: bytes) -> None:
        failures[0] -= 1
        if failures[0] == 0:
            raise OSError(28, "No space left on device", "packs/x")
        real(files, first, data)

    monkeypatch.setattr(blocks.Files, "write", write)
    assert shown_in_place(url, caches) == WANTED
    # If that does not help, it says so.
    monkeypatch.setattr(
        blocks.Files, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space", "packs/x"))
    )
    shutil.rmtree(caches)
    with pytest.raises(FsmountError, match=r"packs/x: the cache of this mount failed: No space"):
        shown_in_place(url, caches)


def test_a_large_file_is_read_in_parts(
    root: Path, small_limits: None, tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "KEEP_BYTES", 1 << 20)
    data = os.urandom(3 << 20)
    trio.run(fill, root, {b"video": data})
    url = f"file://{tmp_path}/remote"
    pushed(root, url)

    async def look() -> None:
        calls: list[tuple[str, str]] = []
        async with remote_stores(url, caches, budget=8 << 20, connect=counted(calls)) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            calls.clear()
            handle = await filesystem.open(
                ino_of(stores[""], b"video"), os.O_RDONLY, Caller(0, 0, 0)
            )
            assert await filesystem.read(handle, 2_000_000, 5) == data[2_000_000:2_000_005]
            assert [call for call, name in calls if name.startswith("raw/")] == ["get_range"]
            await filesystem.release(handle)
            assert await read_file(filesystem, ino_of(stores[""], b"video")) == data

    trio.run(look)


def test_a_file_that_is_staged_beside(root: Path, tmp_path: Path, caches: Path) -> None:
    """An empty staged file and one of several parts."""
    with open_store(root) as store:
        put(store, b"empty", b"")
        put(store, b"long", bytes(range(256)) * 200)
    url = f"file://{tmp_path}/remote"
    pushed(root, url)
    assert shown_in_place(url, caches) == {b"empty": b"", b"long": bytes(range(256)) * 200}
