"""Copies of files from store to store: the same tree, the same bytes, nothing coded again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.delta.record import Record
from fsmount.errors import Damaged, DiskFull
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.copying import CopySummary, StoreCopier
from fsmount.store.transfer.copying_objects import exchanged
from fsmount.store.transfer.patterns import ALL, Patterns, Rule
from fsmount.work.workers import Workers
from tests.repairing import repair
from tests.store.test_formats import FORMATS, STORES, fsmount, sums, wanted
from tests.support.backups import faults, shown
from tests.support.encoding import left_behind, put
from tests.support.frames import FlakyDisk, png, screens
from tests.support.packs import drop_parity, flip
from tests.support.paths import CHECKOUT
from tests.support.repacking import fill, pictures, run
from tests.support.trees import export_from, facts, import_into

FILES = pictures(8)


def copied(
    source: Path,
    target: Path,
    *,
    chosen: Patterns = ALL,
    into: bytes = b"",
    path: bytes = b"",
    disk: Disk | None = None,
) -> CopySummary:
    async def work() -> CopySummary:
        with open_read_store(source) as files, open_store(target, disk=disk) as opened:
            async with opened.started(count=1) as store:
                copier = StoreCopier(files, store, into=into)
                await copier.copy(path, chosen)
                if store.pending():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(store.run)
                        await store.drain()
                        nursery.cancel_scope.cancel()
                return copier.summary

    return trio.run(work)


def objects(root: Path) -> list[tuple[str, bool]]:
    """Kind of each object, and whether it can be rendered. Sorted."""
    with open_read_store(root) as store:
        return sorted((o.kind, not o.is_layer_only) for o in store.index.all_objects())


def only(*names: str) -> Patterns:
    return Patterns([*(Rule(True, f"/{name}") for name in names), Rule(False, "*")])


@pytest.fixture(name="other")
def another(tmp_path: Path) -> Path:
    """A second store, empty."""
    config.make(tmp_path / "other", Disk())
    return tmp_path / "other"


def test_a_tree_with_everything(root: Path, other: Path, source: Path, tmp_path: Path) -> None:
    trio.run(import_into, root, f"{source}/")
    trio.run(fill, root, FILES)
    done = copied(root, other)
    assert (done.problems, done.skipped) == ([], 0)
    assert shown(other) == shown(root)
    assert faults(other) == []
    for store, out in ((root, "a"), (other, "b")):
        trio.run(export_from, store, tmp_path / out)
    assert facts(tmp_path / "b") == facts(tmp_path / "a")
    # A second run finds all of it.
    again = copied(root, other)
    assert (again.files, again.objects, again.problems) == (0, 0, [])
    assert again.skipped == done.files


def test_nothing_is_coded_again(root: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trio.run(fill, root, FILES)

    async def never(*_: object, **__: object) -> None:
        raise AssertionError("a job of a worker")

    monkeypatch.setattr(Workers, "run", never)
    copied(root, other)
    assert objects(other) == objects(root)


def test_the_script_reads_a_copy(root: Path, other: Path, tmp_path: Path) -> None:
    """The decoder that shares no code with fsmount, from packs alone: paths and bytes are right."""
    trio.run(fill, root, FILES)
    copied(root, other, into=b"a/b")
    script = CHECKOUT / "contrib" / "unpack.py"
    command = [sys.executable, str(script), str(other / "packs"), str(tmp_path / "out")]
    subprocess.run(command, check=True)
    found = {os.fsencode(p.name): p.read_bytes() for p in (tmp_path / "out" / "a" / "b").iterdir()}
    assert found == FILES


@pytest.mark.parametrize("name", FORMATS)
def test_stores_of_all_formats(other: Path, tmp_path: Path, name: str) -> None:
    """With dictionaries, pictures in two images, interlaced and animated ones."""
    store = Path(shutil.copytree(STORES / name, tmp_path / name))
    assert copied(store, other).problems == []
    fsmount("export", other, tmp_path / "out")
    assert sums(tmp_path / "out") == wanted(store)
    assert faults(other) == []
    assert objects(other) == objects(store)


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_of_each_format(other: Path, tmp_path: Path, name: str) -> None:
    """Files one by one from the last, and their dictionaries with them: nothing comes twice."""
    store = Path(shutil.copytree(STORES / name, tmp_path / name))
    names = sorted(wanted(store))
    for path in names[::-5]:
        copied(store, other, path=os.fsencode(path))
    assert set(shown(other)) == {os.fsencode(path) for path in names[::-5]}
    assert faults(other) == []
    copied(store, other)
    assert shown(other) == shown(store)
    assert faults(other) == []
    # A layer of an earlier run may stay beside the copy of its file.
    whole = [row for row in objects(other) if row[1]]
    assert whole == [row for row in objects(store) if row[1]]


# -- merging


def test_equal_files_are_stored_once(root: Path, other: Path) -> None:
    mine = {b"mine %d" % i: png(frame) for i, frame in enumerate(screens(3, seed=4, height=64))}
    twins = {b"twin.png": FILES[b"03.png"]}
    trio.run(fill, root, FILES)
    trio.run(fill, other, mine | twins)
    before = len(objects(other))
    done = copied(root, other)
    assert done.files == len(FILES)
    assert shown(other) == mine | twins | FILES
    assert faults(other) == []
    with open_read_store(other) as store:
        numbers = {name: inode.object_id for name, inode in store.index.walk() if inode.object_id}
        # Others may take pixels from a copy of the object, which no file shows.
        layers = [found for found in store.index.all_objects() if found.is_layer_only]
    assert numbers[b"twin.png"] == numbers[b"03.png"]
    assert len(objects(other)) == before + len(FILES) - 1 + len(layers)


def test_a_name_that_is_taken(root: Path, other: Path) -> None:
    trio.run(fill, root, FILES)
    trio.run(fill, other, {b"02.png": b"mine", b"03.png": FILES[b"03.png"]})
    done = copied(root, other)
    assert [path for path, _ in done.problems] == ["02.png"]
    assert "it was left as it is" in done.problems[0][1]
    assert (done.files, done.skipped) == (len(FILES) - 2, 1)
    assert shown(other) == FILES | {b"02.png": b"mine"}


def test_a_folder_of_the_target(root: Path, other: Path, source: Path) -> None:
    trio.run(import_into, root, f"{source}/")
    copied(root, other, into=b"/2024/a/", path=b"desk/2024 June")
    assert set(shown(other)) == {b"2024/a/desk/2024 June/%02d.png" % i for i in range(3)}
    trio.run(fill, other, {b"file": b"x"})
    with pytest.raises(Exception, match="no folder"):
        copied(root, other, into=b"file")


# -- splitting


def test_a_part_takes_what_it_needs(root: Path, other: Path) -> None:
    trio.run(fill, root, FILES)
    done = copied(root, other, chosen=only("07.png"))
    assert (done.files, done.problems) == (1, [])
    assert shown(other) == {b"07.png": FILES[b"07.png"]}
    assert faults(other) == []
    layers = [row for row in objects(other) if not row[1]]
    assert 0 < len(layers) < len(FILES)
    # The target stands alone, and a repack of it works.
    trio.run(run, other)
    shutil.rmtree(root)
    assert shown(other) == {b"07.png": FILES[b"07.png"]}
    assert faults(other) == []


def test_the_rest_completes_the_layers(root: Path, other: Path) -> None:
    """An object that gave pixels alone is shown later: it is not copied twice."""
    trio.run(fill, root, FILES)
    for name in ("07.png", "05.png", "06.png"):
        copied(root, other, chosen=only(name))
    copied(root, other)
    assert shown(other) == FILES
    assert faults(other) == []
    assert objects(other) == objects(root)


def test_a_part_of_a_part(root: Path, other: Path, tmp_path: Path) -> None:
    """The source has objects of which only the layer is left."""
    trio.run(fill, root, FILES)
    copied(root, other, chosen=only("07.png", "06.png"))
    config.make(tmp_path / "third", Disk())
    copied(other, tmp_path / "third", chosen=only("06.png"))
    copied(other, tmp_path / "third")
    assert shown(tmp_path / "third") == {name: FILES[name] for name in (b"06.png", b"07.png")}
    assert faults(tmp_path / "third") == []
    copied(root, tmp_path / "third")
    assert shown(tmp_path / "third") == FILES
    assert faults(tmp_path / "third") == []


def test_a_lost_index_of_a_part(root: Path, other: Path) -> None:
    """Records of layers name objects that are not there."""
    trio.run(fill, root, FILES)
    copied(root, other, chosen=only("07.png", "06.png"))
    assert any(not whole for _, whole in objects(other))
    (other / "index.sqlite").unlink()
    (other / "packs" / "names.gz").unlink()
    trio.run(repair, other)
    # As after a repack, files of objects that can be made come back, too.
    found = shown(other)
    assert {b"06.png", b"07.png"} <= found.keys()
    assert found.items() <= FILES.items()
    assert faults(other) == []
    # What is missing may come later.
    copied(root, other)
    assert shown(other) == FILES
    assert faults(other) == []


def test_a_lost_index_of_a_copy(root: Path, other: Path) -> None:
    """Objects were completed by later ones, whose ids are higher."""
    trio.run(fill, root, FILES)
    for name in ("07.png", "03.png"):
        copied(root, other, chosen=only(name))
    copied(root, other)
    (other / "index.sqlite").unlink()
    (other / "packs" / "names.gz").unlink()
    trio.run(repair, other)
    assert shown(other) == FILES
    assert faults(other) == []


def test_trimmed_layers_are_no_twins(root: Path, other: Path, tmp_path: Path) -> None:
    """Of pruned pictures only the pixels that others take are left, with the same records."""
    trio.run(fill, root, FILES)
    shutil.copytree(root, tmp_path / "whole")
    fsmount("prune", root, "--keep-last", "2", "--yes")
    fsmount("trash", "empty", root, "--yes")
    assert len(shown(root)) < len(FILES)
    assert any(not whole for _, whole in objects(root))
    # Into the pruned store, and into a copy of it.
    copied(root, other)
    for target in (root, other):
        copied(tmp_path / "whole", target)
        assert shown(target) == FILES
        assert faults(target) == []


# -- files that are not encoded, large, or damaged


def test_staged_files_are_encoded(root: Path, other: Path) -> None:
    with open_store(root) as store:
        put(store, b"staged.png", FILES[b"00.png"])
    done = copied(root, other)
    assert (done.files, done.objects) == (1, 0)
    assert objects(other) == [("key", True)]
    assert shown(other) == {b"staged.png": FILES[b"00.png"]}


def test_large_files(root: Path, other: Path, small_limits: None) -> None:
    large = {b"large": os.urandom(9000), b"also": os.urandom(7000)}
    trio.run(fill, root, large)
    copied(root, other)
    assert shown(other) == large
    assert len(os.listdir(other / "raw")) == 2
    assert faults(other) == []


def test_damage_costs_the_damaged_files_alone(root: Path, other: Path, small_limits: None) -> None:
    noise = {b"n%d" % number: os.urandom(3000) for number in range(4)}
    trio.run(fill, root, noise | {b"large": os.urandom(9000)})
    drop_parity(root)
    with open_read_store(root) as store:
        bad = list(store.index.all_objects())[1]
        flip(store.layout.pack(bad.pack), bad.offset + bad.length // 2)
        flip(next((root / "raw").iterdir()), 20)
    done = copied(root, other)
    assert [path for path, _ in done.problems] == ["large", "n1"]
    assert shown(other) == {name: data for name, data in noise.items() if name != b"n1"}
    assert faults(other) == []
    assert not os.listdir(other / "raw")


def test_the_source_is_repacked_meanwhile(
    root: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio.run(fill, root, FILES)
    waiting = [True]
    below = StoreCopier._one

    async def one(self: StoreCopier, *args: object) -> None:
        if waiting.pop() if waiting else False:
            before = set(os.listdir(root / "packs"))
            command = "from fsmount.store.maintenance import repack as r; r._LEAST_GAIN = -1 << 60"
            command += "; import sys; from fsmount.cli import main; main(['repack', sys.argv[1]])"
            subprocess.run([sys.executable, "-c", command, str(root)], check=True)
            assert not before & set(os.listdir(root / "packs")) - {"names.gz"}
        await below(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreCopier, "_one", one)
    assert copied(root, other).problems == []
    assert shown(other) == FILES
    assert faults(other) == []


# -- ends in the middle


def test_a_full_disk_and_the_next_run(
    root: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.store.transfer.copying_objects._BATCH", 3)
    trio.run(fill, root, FILES)
    counts = []
    # The first writes are those of the opening, which goes on without them.
    for skip in range(2, 50):
        disk = FlakyDisk()
        disk.fail_once("pwrite", errno.ENOSPC, skip=skip)
        try:
            copied(root, other, disk=disk)
        except (DiskFull, OSError):
            counts.append(len(shown(other)))
            assert shown(other).items() <= FILES.items()
            assert faults(other) == []
        else:
            break
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert shown(other) == FILES
    assert faults(other) == []
    assert objects(other) == objects(root)


def test_death_at_any_call(
    root: Path, other: Path, tmp_path: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.store.transfer.copying_objects._BATCH", 3)
    files = FILES | {b"zz large": os.urandom(9000)}
    trio.run(fill, root, files)
    dead: list[Path] = []
    disk = FlakyDisk()

    def hook(call: str, what: object) -> int:
        dead.append(left_behind(other, tmp_path / f"dead {len(dead)}"))
        return 0

    disk.hook = hook
    copied(root, other, disk=disk)
    assert len(dead) > 30
    last = 0
    for place in dead[::5]:
        # Recovery removes what no row names.
        open_store(place).close()
        found = shown(place)
        assert found.items() <= files.items()
        assert faults(place) == []
        assert last <= len(found)
        last = len(found)
        assert len(os.listdir(place / "raw")) == (b"zz large" in found)
    copied(root, dead[len(dead) // 2])
    assert shown(dead[len(dead) // 2]) == files


# -- records


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(1, 9),
            st.tuples(st.integers(1, 9), st.integers(-5, 5), st.integers(-5, 5)).map(list),
            st.fixed_dictionaries({"fill": st.lists(st.integers(0, 255), max_size=4)}),
        )
    )
)
def test_exchanged_ids_come_back(sources: list[object]) -> None:
    found = Record({"id": 3, "path": "a", "sources": sources, "size": 5}, {"tiles": b"xy"})
    there = exchanged(found, lambda number: number + 100, 103, "b")
    assert there.header["id"] == 103
    assert exchanged(there, lambda number: number - 100, 3, "a") == found


@pytest.mark.parametrize("source", [["a"], "x", 1.5, [1, 2, 3, 4]])
def test_a_source_that_is_none(source: object) -> None:
    with pytest.raises(Damaged):
        exchanged(Record({"id": 1, "sources": [source]}, {}), lambda number: number, 2, None)
