"""A repack never makes a store larger: all files of the closed store count, before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from fsmount.codec.delta import payload
from fsmount.store.ingest import large
from fsmount.store.layout import Layout
from fsmount.store.maintenance import compacting, repack
from fsmount.store.maintenance.repack import RepackSummary
from fsmount.store.packs import pack
from tests.support.encoding import Inline
from tests.support.repacking import (
    delete,
    fill,
    noise,
    opening,
    pictures,
    poor,
    run,
    stored_as,
    whole,
)

Files = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def limits(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make codes poor at ingest."""
    monkeypatch.setattr(payload, "encode", poor)
    monkeypatch.setattr(large, "KEEP_BYTES", 100_000)


def total(root: Path) -> int:
    """Bytes of all files of a closed store."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


async def one(root: Path) -> Files:
    files = pictures(1)
    await fill(root, files)
    return files


async def many(root: Path) -> Files:
    files = pictures(12)
    await fill(root, files)
    return files


async def raw(root: Path) -> Files:
    files = noise(30) | {b"large": bytes(200_000)}
    await fill(root, files)
    return files


async def mostly_deleted(root: Path) -> Files:
    files = pictures(6) | noise(300, 100)
    await fill(root, files)
    gone = [name for name in files if name not in (b"00.png", b"01.png", b"note007")]
    await delete(root, *gone)
    return {name: data for name, data in files.items() if name not in gone}


async def all_deleted(root: Path) -> Files:
    files = pictures(6)
    await fill(root, files)
    await delete(root, *files)
    return {}


async def full_packs(root: Path) -> Files:
    """Store pictures and raw files in many small packs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "SEAL_BYTES", 3000)
        return await many(root) | await raw(root)


async def more_than_before(root: Path) -> Files:
    """Repack a store, and store more in it."""
    await many(root)
    await run(root)
    files = pictures(16)
    await fill(root, dict(list(files.items())[12:]))
    return files


async def with_damage(root: Path) -> Files:
    await many(root)
    found, path = stored_as(root, b"07.png")
    data = bytearray(path.read_bytes())
    data[found.offset + found.length - 3] ^= 1
    path.write_bytes(data)
    return {}


KINDS = (
    one,
    many,
    raw,
    mostly_deleted,
    all_deleted,
    full_packs,
    more_than_before,
    with_damage,
)


@pytest.mark.parametrize("make", KINDS)
async def test_a_repack_does_not_make_a_store_larger(
    root: Path, make: Callable[[Path], Awaitable[Files]]
) -> None:
    files = await make(root)
    sizes = [total(root)]
    for _ in range(3):
        await run(root)
        sizes.append(total(root))
    assert sizes[1] <= sizes[0]
    # There is nothing more to do.
    assert sizes[2:] == [sizes[1], sizes[1]]
    if make not in (raw, with_damage):
        assert sizes[1] < sizes[0]
        await whole(root, files)


async def test_nothing_is_moved_that_gets_no_smaller(root: Path) -> None:
    files = noise(200, 50)
    await fill(root, files)
    state = {path.name: path.read_bytes() for path in (root / "packs").glob("*.zip")}
    assert await run(root) == RepackSummary()
    assert {path.name: path.read_bytes() for path in (root / "packs").glob("*.zip")} == state
    # They move when enough was deleted.
    more = noise(250, 50)
    await fill(root, dict(list(more.items())[200:]))
    assert await run(root) == RepackSummary()
    await delete(root, *list(more)[:100])
    summary = await run(root)
    assert (summary.dropped, summary.moved) == (100, 100)
    await whole(root, dict(list(more.items())[100:]))


async def test_what_stays_is_counted_and_not_looked_at_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repack that was stopped goes on where it was."""
    monkeypatch.setattr(repack, "_BATCH", 4)
    await fill(root, noise(20))
    seen: list[int] = []
    with trio.CancelScope() as scope:

        def stop(count: int) -> None:
            seen.append(count)
            if sum(seen) == 10:
                scope.cancel()

        await run(root, progress=stop)
    assert scope.cancelled_caught
    with opening(root) as opened:
        (noted,) = opened.index.repacked().values()
        assert [each.id for each in opened.index.objects_in(1) if each.offset < noted] == [
            *range(1, 9)
        ]
    seen.clear()
    await run(root, progress=seen.append)
    assert (seen[0], sum(seen)) == (8, 20)


async def test_the_index_gives_its_free_pages_back(root: Path) -> None:
    files = noise(300, 10)
    await fill(root, files)
    before = Layout(root).index.stat().st_size
    await delete(root, *list(files)[:290])
    await run(root)
    assert Layout(root).index.stat().st_size < 0.7 * before
    await whole(root, dict(list(files.items())[290:]))


async def test_an_index_with_damage_is_not_written_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards nobody could find the damage any more."""
    monkeypatch.setattr(compacting, "faults_at", lambda path: ["a page is in another's place"])
    await all_deleted(root)
    before = Layout(root).index.stat().st_size
    assert (await run(root)).dropped == 6
    assert Layout(root).index.stat().st_size == before


async def test_a_disk_that_has_no_room_for_a_new_index(root: Path) -> None:
    await mostly_deleted(root)
    before = Layout(root).index.stat().st_size
    with opening(root) as opened:
        workers = Inline(1)
        await compacting.compact(opened.index, workers, 3 * before)  # type: ignore[arg-type]
        assert opened.index.bytes() == before
        await compacting.compact(opened.index, workers, 4 * before)  # type: ignore[arg-type]
        assert opened.index.bytes() < before
