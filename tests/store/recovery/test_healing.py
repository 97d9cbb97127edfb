"""Damaged packs of real stores: parity serves every file, and a repair heals the pack."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fsmount.errors import FsmountError
from fsmount.store import store as store_module
from fsmount.store.index import ROOT
from fsmount.store.maintenance import parity_keeper
from fsmount.store.packs import pack as pack_module
from fsmount.store.packs import parity
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery.repair import Repairs
from fsmount.store.store import open_read_store, open_store
from tests import repairing
from tests.support import repacking
from tests.support.encoding import Inline, forget_caches, put
from tests.support.frames import png, screens
from tests.support.packs import drop_parity, flip
from tests.support.trees import make_store

Files = dict[bytes, bytes]


def make_files(count: int = 8, noise: int = 0) -> Files:
    chance = random.Random(1)
    files = {b"%d.png" % n: png(frame) for n, frame in enumerate(screens(count))}
    return files | {b"%d.bin" % n: chance.randbytes(4000) for n in range(noise)}


async def fill(root: Path, files: Files) -> None:
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            for name, data in files.items():
                put(store, name, data)
                await store.drain()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Files]]]:
    """A store whose pack is smaller than a stretch, and one whose pack is larger."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = {}
        for name, noise in (("small", 0), ("larger", 80)):
            root = make_store(tmp_path_factory.mktemp(name) / "store", monkeypatch)
            files = make_files(noise=noise)
            trio.run(fill, root, files)
            made[name] = root, files
        yield made


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "Workers", Inline)


@pytest.fixture(name="root")
def a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_store(tmp_path / "store", monkeypatch)


async def read(store: ReadStore) -> Files:
    """The files that can be read."""
    found = {}
    for _, name, node in store.index.children(ROOT, 0, 1000):
        assert node.object_id is not None
        try:
            body = await store.body(node.object_id)
            found[name] = await body.pread(0, body.size)
        except FsmountError:
            continue
    return found


async def all_files(root: Path) -> Files:
    forget_caches()
    with open_read_store(root) as opened:
        async with opened.running(count=1, cache_bytes=0) as store:
            return await read(store)


async def repaired(root: Path) -> Repairs:
    """Repair a store. Checks that nothing is left, and that a second repair does nothing."""
    repairs, report = await repairing.repair(root)
    assert (repairs.lost, report.findings) == ([], [])
    again, report = await repairing.repair(root)
    assert (again, report.findings) == (Repairs(), [])
    return repairs


@pytest.mark.parametrize(("name", "count"), [("small", 60), ("larger", 15)])
async def test_any_stretch(stores: dict[str, tuple[Path, Files]], name: str, count: int) -> None:
    root, files = stores[name]
    pack = root / "packs" / "00000001.zip"
    good = pack.read_bytes()
    assert (len(good) > parity.STRETCH_BYTES) == (name == "larger")
    chance = random.Random(name)
    for number in range(count):
        longest = parity.STRETCH_BYTES if number % 5 == 0 else 4096
        length = min(len(good), longest if number % 5 == 0 else chance.randint(1, longest))
        at = chance.randint(0, len(good) - length)
        pack.write_bytes(good[:at] + chance.randbytes(length) + good[at + length :])
        assert await all_files(root) == files, (at, length)
        if number % 10 == 0:
            await repaired(root)
            covered = parity.shape_at(parity.file_of(pack)).covered
            assert pack.read_bytes()[:covered] == good[:covered]
    pack.write_bytes(good)


async def test_a_suffix_that_no_checksum_covers(
    stores: dict[str, tuple[Path, Files]], caplog: pytest.LogCaptureFixture
) -> None:
    root, files = stores["small"]
    pack = root / "packs" / "00000001.zip"
    at = pack.read_bytes().index(b".webp")
    flip(pack, at + 2)
    assert await all_files(root) == files
    lines = [each.message for each in caplog.records if "check --repair" in each.message]
    (line,) = lines
    assert "00000001.zip: 1024 bytes at 0 are damaged" in line
    assert (await repaired(root)).packs == ["00000001.zip"]


def id_places(root: Path) -> dict[int, list[int]]:
    """Return the offsets of the bytes of ids in the first pack, by offset of the entry."""
    with open_read_store(root) as opened:
        places = [(found.offset, found.id) for found in opened.index.objects_in(1)]
    pack = (root / "packs" / "00000001.zip").read_bytes()
    return {
        offset: list(range(at, at + 8))
        for offset, number in places
        for at in [pack.index(b"%08x" % number, offset)]
    }


@pytest.mark.parametrize("has_index", [True, False])
async def test_ids_that_no_checksum_covers(
    stores: dict[str, tuple[Path, Files]], tmp_path: Path, *, has_index: bool
) -> None:
    """A damaged id looks like a whole entry of another object."""
    whole, files = stores["small"]
    root = tmp_path / "store"
    pack = root / "packs" / "00000001.zip"
    good = (whole / "packs" / pack.name).read_bytes()
    covered = parity.shape_at(whole / "packs" / "00000001.parity").covered
    for number, places in enumerate(id_places(whole).values()):
        # Flip each bit of the last digit; damage three digits; take the name of another entry.
        last = places[-1]
        damages = [(last, bytes([good[last] ^ 1 << bit])) for bit in range(8)]
        damages.append((places[3], b"fed"))
        damages.append((places[0], b"%08x" % (number + 3)))
        for at, data in damages:
            shutil.copytree(whole, root)
            pack.write_bytes(good[:at] + data + good[at + len(data) :])
            if not has_index:
                (root / "index.sqlite").unlink()
            repairs, report = await repairing.repair(root)
            assert (repairs.lost, report.findings) == ([], []), (at, data)
            assert pack.read_bytes()[:covered] == good[:covered]
            assert await all_files(root) == files
            shutil.rmtree(root)


async def test_a_small_pack_that_is_lost(root: Path) -> None:
    files = make_files()
    await fill(root, files)
    (root / "packs" / "00000001.zip").unlink()
    assert await all_files(root) == files
    repairs = await repaired(root)
    assert repairs.packs == ["00000001.zip"]
    assert await all_files(root) == files


async def test_a_lost_index_and_a_damaged_pack(root: Path) -> None:
    files = make_files()
    await fill(root, files)
    pack = root / "packs" / "00000001.zip"
    good = pack.read_bytes()
    pack.write_bytes(bytes(4096) + good[4096:])
    (root / "index.sqlite").unlink()
    (root / "packs" / "names.gz").unlink()
    repairs = await repaired(root)
    assert (repairs.packs, len(repairs.renamed)) == (["00000001.zip"], len(files))
    assert await all_files(root) == files


async def test_what_came_since_the_parity_has_none(root: Path) -> None:
    """Parity that covers a part of its pack is neither damaged nor used for the rest."""
    files = make_files()
    await fill(root, files)
    old = (root / "packs" / "00000001.parity").read_bytes()
    more = {b"note": b"some text"}
    await fill(root, more)
    path = root / "packs" / "00000001.parity"
    assert path.read_bytes() != old
    path.write_bytes(old)
    assert await all_files(root) == files | more
    with open_read_store(root) as opened:
        last = max(opened.index.all_objects(), key=lambda found: found.offset)
    flip(root / "packs" / "00000001.zip", last.offset + last.length - 1)
    assert await all_files(root) == files
    repairs, report = await repairing.repair(root)
    assert (repairs.lost, report.findings) == (["note"], [])


async def test_parity_of_other_bytes_changes_nothing(root: Path) -> None:
    files = make_files()
    await fill(root, files)
    pack = root / "packs" / "00000001.zip"
    good = pack.read_bytes()
    shape = parity.shape_at(parity.file_of(pack))
    pack.write_bytes(bytes(3000) + good[3000:])
    parity.file_of(pack).write_bytes(parity.build(pack, shape))
    pack.write_bytes(good)
    assert await all_files(root) == files
    repairs = await repaired(root)
    assert (repairs.packs, repairs.parity) == ([], ["00000001.zip"])
    assert pack.read_bytes() == good


async def test_a_damaged_pack_keeps_its_parity(root: Path) -> None:
    files = make_files()
    await fill(root, files)
    pack = root / "packs" / "00000001.zip"
    known = parity.load_of(pack)
    before = known.path.read_bytes()
    again = parity.plan(1, known.shape.covered, 25)
    assert parity_keeper.make(str(pack), again) is not None
    flip(pack, 200)
    assert parity_keeper.make(str(pack), again) is None
    # The pack is damaged while it is open and grows.
    flip(pack, 200)
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            flip(pack, 200)
            put(store, b"note", b"some text")
            await store.drain()
    assert known.path.read_bytes() == before
    assert await all_files(root) == files | {b"note": b"some text"}
    assert (await repaired(root)).packs == ["00000001.zip"]
    assert await all_files(root) == files | {b"note": b"some text"}


async def test_a_pack_with_a_damaged_id_keeps_its_parity(root: Path) -> None:
    """All its entries look whole, but its parity knows better."""
    files = make_files()
    await fill(root, files)
    pack = root / "packs" / "00000001.zip"
    before = parity.file_of(pack).read_bytes()
    place = list(id_places(root).values())[2][-1]
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            flip(pack, place)
            put(store, b"note", b"some text")
            await store.drain()
    assert parity.file_of(pack).read_bytes() == before
    assert await all_files(root) == files | {b"note": b"some text"}
    assert (await repaired(root)).packs == ["00000001.zip"]
    assert await all_files(root) == files | {b"note": b"some text"}


async def test_each_pack_has_parity_while_the_store_is_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "SEAL_BYTES", 4000)
    monkeypatch.setattr(parity_keeper, "_LOOK_SECONDS", 0.01)
    packs = root / "packs"
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            for name, data in make_files(2, noise=6).items():
                put(store, name, data)
                await store.drain()
            sealed = [number for number, (_, done) in store.index.packs().items() if done]
            assert len(sealed) > 3
            with trio.fail_after(30):
                while not all((packs / f"{number:08d}.parity").exists() for number in sealed):
                    await trio.sleep(0.01)
    names = {path.stem for path in packs.glob("*.zip")}
    assert {path.stem for path in packs.glob("*.parity")} == names
    # Repack removes packs with their parity.
    await repacking.delete(root, *list(make_files(2, noise=6))[:-1])
    await repacking.run(root)
    left = {path.stem for path in packs.glob("*.zip")}
    assert {path.stem for path in packs.glob("*.parity")} == left
    assert len(names - left) > 3


async def covers_all(root: Path, seconds: float) -> bool:
    """Put a file into a new store. Returns whether parity covers it while the store is open."""
    path = root / "packs" / "00000001.parity"
    with open_store(root) as opened:
        async with opened.running(count=1) as store:
            put(store, b"note", b"some text")
            await store.drain()
            with trio.move_on_after(seconds):
                while not path.exists():
                    await trio.sleep(0.01)
                return parity.shape_at(path).covered == store.index.packs()[1][0]
    return False


async def test_a_few_new_bytes_wait(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity_keeper, "_LOOK_SECONDS", 0.01)
    assert not await covers_all(root, 0.5)
    assert parity.shape_at(root / "packs" / "00000001.parity").covered == open_length(root)


async def test_but_no_longer_than_an_hour(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity_keeper, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(parity_keeper, "_LATE_SECONDS", 0.1)
    assert await covers_all(root, 30)


async def test_the_last_space_of_a_disk_is_for_files(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(parity_keeper, "_FREE_BYTES", 1 << 60)
        await fill(root, make_files())
        assert list((root / "packs").glob("*.parity*")) == []
    await fill(root, {b"note": b"some text"})
    assert len(list((root / "packs").glob("*.parity*"))) == 1


async def test_parity_that_outlived_its_pack_goes(root: Path) -> None:
    await fill(root, make_files())
    packs = root / "packs"
    data = (packs / "00000001.parity").read_bytes()
    for name in ("00000009.parity", "00000001.parity.new"):
        (packs / name).write_bytes(data)
    # The pack was cut, and a crash came before its parity was removed.
    with open_store(root) as opened:
        first = min(opened.index.all_objects(), key=lambda found: found.offset)
    assert {path.name for path in packs.glob("*.parity*")} == {"00000001.parity"}
    shape = parity.plan(1, (packs / "00000001.zip").stat().st_size, 5)
    (packs / "00000001.parity").write_bytes(parity.build(packs / "00000001.zip", shape))
    assert shape.covered > first.length
    open_store(root).close()
    length = open_length(root)
    assert parity.shape_at(packs / "00000001.parity").covered == length


def open_length(root: Path) -> int:
    with open_read_store(root) as opened:
        return opened.index.packs()[1][0]


async def test_a_store_without_parity_has_none(root: Path) -> None:
    await fill(root, make_files())
    drop_parity(root)
    await fill(root, {b"note": b"some text"})
    assert list((root / "packs").glob("*.parity")) == []
    assert await repaired(root) == Repairs()
    assert list((root / "packs").glob("*.parity")) == []
