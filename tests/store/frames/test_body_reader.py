"""Bodies as readers get them: rendered once, or read where they lie; damage is an error."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from fsmount.errors import Damaged, WorkerDied
from fsmount.store.frames import group, jobs
from fsmount.store.frames.reader import Reader
from fsmount.store.ingest import large
from fsmount.store.packs import entries
from fsmount.store.packs.bodies import KeptBody, RenderedBody
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import Inline, forget_caches, get, put
from tests.support.frames import png, screens

NOTE = b"not a picture"

pytestmark = pytest.mark.usefixtures("inline")


async def test_a_body_is_rendered_once_for_many_readers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renders = 0

    async def before(function: object) -> None:
        nonlocal renders
        renders += function is jobs.render

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    data = png(screens(1)[0])
    opened = open_store(root)
    async with opened.running(count=1) as store:
        ino = put(store, b"a", data)
        await store.prefetch(ino)
        await store.drain()
        bodies: list[object] = []

        async def read() -> None:
            bodies.append(await store.body(1))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
        await store.prefetch(ino)
        await store.prefetch(9999)
        assert bodies == [RenderedBody(data)] * 5
        assert renders == 1
    opened.close()


async def test_damage_is_an_error_for_its_file_alone(root: Path) -> None:
    files = {b"a": png(screens(1)[0]), b"b": NOTE}
    opened = open_store(root)
    async with opened.running(count=1) as store:
        inodes = {name: put(store, name, data) for name, data in files.items()}
        await store.drain()
        found = store.index.object(1)
        path = store.layout.pack(1)
        data = bytearray(path.read_bytes())
        data[found.offset + found.length - 5] ^= 1
        path.write_bytes(data)
        forget_caches()
        with pytest.raises(Damaged):
            await get(store, inodes[b"a"])
        await store.prefetch(inodes[b"a"])
        assert await get(store, inodes[b"b"]) == NOTE
        with pytest.raises(Damaged):
            await store.body(77)
    opened.close()


async def test_a_size_that_is_wrong_in_the_index_is_damage(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"a", NOTE)
        await store.drain()
        store.index._db.execute("UPDATE objects SET size = size + 1")
        with pytest.raises(Damaged):
            await store.body(1)
    opened.close()


async def test_a_large_file_is_read_where_it_lies(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "KEEP_BYTES", 1000)
    data = os.urandom(3000)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        ino = put(store, b"a", data)
        await store.drain()
        body = await store.body(1)
        assert isinstance(body, KeptBody)
        assert await get(store, ino) == data
        store.layout.kept(1).write_bytes(data[:-1] + b"?")
        with pytest.raises(Damaged):
            await get(store, ino)
        store.layout.kept(1).unlink()
        with pytest.raises(Damaged):
            await get(store, ino)
    opened.close()


FRAMES = [png(frame) for frame in screens(12)]


async def rendered(store: WritableStore, *ids: int, with_bytes: bool = True) -> list[object]:
    """The bytes or hashes of objects that are rendered together, None for damaged ones."""
    found: list[object] = []
    while len(found) < len(ids):
        made = await store.render(ids[len(found) :], with_bytes=with_bytes)
        assert made
        for each in made:
            if each is not None:
                assert each.sha256 == hashlib.sha256(each.data).digest() or not with_bytes
                assert each.data == b"" or with_bytes
            found.append(each and (each.data if with_bytes else each.sha256))
    return found


async def test_objects_are_rendered_together_each_layer_decoded_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    async def before(function: object) -> None:
        calls.append(function)

    opened = open_store(root)
    async with opened.running(count=1) as store:
        for number, data in enumerate([*FRAMES, NOTE]):
            put(store, b"%d" % number, data)
        await store.drain()
    opened.close()
    forget_caches()
    opened = open_store(root)
    async with opened.running(count=1) as store:
        monkeypatch.setattr(Inline, "before", staticmethod(before))
        decoded = 0
        real = Reader.decode

        def decode(*args: Any) -> Any:
            nonlocal decoded
            decoded += 1
            return real(*args)

        monkeypatch.setattr(Reader, "decode", decode)
        pictures = [each.id for each in store.index.all_objects() if each.kind in entries.FRAMES]
        files = {hashlib.sha256(data).digest(): data for data in [*FRAMES, NOTE]}
        everything = [each.id for each in store.index.all_objects() if each.uses]
        wanted = [files[store.index.object(each).sha256] for each in everything]
        # The later ones need layers of the earlier ones.
        assert await rendered(store, *everything[6:]) == wanted[6:]
        assert calls == [group.decode_layers, group.render]
        hashes = await rendered(store, *everything, with_bytes=False)
        assert hashes == [hashlib.sha256(data).digest() for data in wanted]
        assert decoded == len(pictures)
    opened.close()


async def test_what_is_damaged_keeps_no_other_back(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for number, data in enumerate(FRAMES[:3]):
            put(store, b"%d" % number, data)
        put(store, b"note", NOTE)
        await store.drain()
        found = store.index.object(4)
        path = store.layout.pack(1)
        pack = bytearray(path.read_bytes())
        pack[found.offset + found.length - 3] ^= 1
        path.write_bytes(pack)
        forget_caches()
        assert await rendered(store, 1, 2, 3, 4) == [*FRAMES[:3], None]
        assert await rendered(store, 4, 1, with_bytes=False) == [
            None,
            hashlib.sha256(FRAMES[0]).digest(),
        ]
        assert await rendered(store, 1, 77) == [None, None], "the row of 77 is missing"
    opened.close()


async def test_a_job_ends_early_if_its_layers_take_much_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for number, data in enumerate(FRAMES):
            put(store, b"%d" % number, data)
        await store.drain()
    opened.close()
    monkeypatch.setattr(group, "_LAYER_BYTES", 0)
    opened = open_store(root)
    async with opened.running(count=1, cache_bytes=0) as store:
        ids = [each.id for each in store.index.all_objects()]
        made = await store.render(ids, with_bytes=True)
        assert len(made) == 1
        assert len(await rendered(store, *ids)) == len(ids)
    opened.close()


async def test_a_worker_that_dies_costs_only_the_group(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(function: object) -> None:
        if function is group.render:
            raise WorkerDied("render")

    opened = open_store(root)
    async with opened.running(count=1) as store:
        for number, data in enumerate(FRAMES[:2]):
            put(store, b"%d" % number, data)
        await store.drain()
        monkeypatch.setattr(Inline, "before", staticmethod(die))
        assert await rendered(store, 1, 2) == [None, None]
        assert (await store.body(2)).size == len(FRAMES[1])
    opened.close()
