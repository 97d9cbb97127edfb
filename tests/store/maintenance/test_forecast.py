"""What is said before a repack, against what the repack then does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fsmount.codec.delta import payload
from fsmount.codec.delta.payload import Own, Payload
from fsmount.codec.zstd import Dictionary
from fsmount.store.frames.planner import Planner
from fsmount.store.maintenance import forecast
from fsmount.store.maintenance.forecast import Forecast
from fsmount.work import machine
from tests.support.encoding import Inline
from tests.support.repacking import (
    delete,
    fill,
    noise,
    opening,
    opening_to_read,
    packed,
    pictures,
    poor,
    run,
    stored_as,
    whole,
)

Files = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def limits(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make codes poor at ingest, without dictionaries, and code one object at a time."""
    monkeypatch.setattr(Planner, "for_dictionary", lambda planner, geometry: ())
    monkeypatch.setattr(payload, "encode", poor)
    monkeypatch.setattr(machine, "cores", lambda: 1)


def state(root: Path) -> dict[Path, bytes]:
    """The bytes of all files, without the memory that SQLite shares between connections."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-shm", "-wal"))}


async def expected(root: Path, limit_s: float = 60.0) -> Forecast:
    """Make the forecast as a dry run does. Checks that it changes nothing."""
    before = state(root)
    with opening_to_read(root) as opened:
        async with opened.running(count=1) as store:
            found = await forecast.forecast(store, limit_s)
    assert state(root) == before
    return found


async def several(root: Path) -> Files:
    files = pictures(30)
    await fill(root, files)
    return files


async def with_notes(root: Path) -> Files:
    files = pictures(20) | noise(20)
    await fill(root, files)
    return files


async def after_a_repack(root: Path) -> Files:
    files = pictures(30)
    await fill(root, dict(list(files.items())[:10]))
    await run(root)
    await fill(root, dict(list(files.items())[10:]))
    return files


@pytest.mark.parametrize("make", [several, with_notes, after_a_repack])
@pytest.mark.parametrize("limit_s", [0.0, 60.0])
async def test_what_coding_again_saves(
    root: Path, make: Callable[[Path], Awaitable[Files]], limit_s: float
) -> None:
    """A sample of two is right within a factor of two. All objects give the exact number."""
    files = await make(root)
    found = await expected(root, limit_s)
    before = packed(root)
    await run(root)
    saved = before - packed(root)
    assert found.sampled == (found.pictures if limit_s else 2)
    assert found.pictures in (20, 30)
    assert found.dead_bytes == 0
    if limit_s:
        # A pack has a directory, too, and so do the packs that repack makes.
        assert abs(found.saved_bytes - saved) < 200
        assert found.low == found.saved_bytes == found.high
    else:
        assert saved / 2 < found.saved_bytes < 2 * saved
        assert found.low <= saved <= found.high
    assert (await expected(root)).pictures == 0
    await whole(root, files)


async def test_what_comes_back_for_certain(root: Path) -> None:
    await fill(root, pictures(8) | noise(20))
    names = [*pictures(8), *list(noise(20))[:10]]
    await delete(root, *names)
    found = await expected(root)
    assert (found.packs, found.objects, found.pictures, found.sampled) == (1, 10, 0, 0)
    before = packed(root)
    await run(root)
    # The members of the central directory come back, too.
    assert 0 <= before - packed(root) - found.dead_bytes < 18 * 80
    assert found.dead_bytes > 10 * 2000
    found = await expected(root)
    assert (found.packs, found.objects, found.dead_bytes, found.space_bytes) == (0, 0, 0, 0)


async def test_the_time_is_that_of_the_sample(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await several(root)
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    genuine = payload.encode_again

    def slow(own: Own, dictionary: Dictionary | None = None) -> Payload:
        clock[0] += 2.0
        return genuine(own, dictionary)

    monkeypatch.setattr(payload, "encode_again", slow)
    found = await expected(root, 5.0)
    # The clock stands at 4 seconds when the third begins, at 6 when the fourth would begin.
    assert found.sampled == 3
    assert found.seconds == pytest.approx(60.0)


async def test_the_repack_codes_nothing_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = await several(root)
    coded: list[bytes] = []
    genuine = payload.encode_again

    def count(own: Own, dictionary: Dictionary | None = None) -> Payload:
        coded.append(own.tiles.tobytes())
        return genuine(own, dictionary)

    monkeypatch.setattr(payload, "encode_again", count)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            found = await forecast.forecast(store, 0.0)
            assert len(found.entries) == len(coded) == 2
            summary = await store.repack(lambda count: None, found.entries)
    assert summary.moved == 30
    assert len(coded) == 30
    await whole(root, files)


async def test_an_object_that_cannot_be_coded_is_left_out(root: Path) -> None:
    await several(root)
    found, path = stored_as(root, b"07.png")
    data = bytearray(path.read_bytes())
    data[found.offset + found.length - 3] ^= 1
    path.write_bytes(data)
    said = await expected(root)
    assert 0 < said.sampled < said.pictures == 30


async def test_a_worker_that_dies_leaves_a_forecast(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(function: Callable[..., object]) -> None:
        raise RuntimeError("a damaged record can raise anything")

    await several(root)
    monkeypatch.setattr(Inline, "before", staticmethod(die))
    found = await expected(root)
    assert (found.pictures, found.sampled, found.saved_bytes) == (30, 0, 0)
