"""Bodies as readers get them: rendered once, or read where they lie; damage is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged
from fsmount.store.frames import jobs
from fsmount.store.ingest import large
from fsmount.store.packs.bodies import KeptBody, RenderedBody
from fsmount.store.store import open_store
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
