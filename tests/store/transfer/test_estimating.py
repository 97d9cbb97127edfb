"""Estimate: the predicted size of a folder in a store, compared with its real size."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import trio

from fsmount.legacy.archive import Archive
from fsmount.legacy.decoding import Decoded
from fsmount.store.store import open_read_store
from fsmount.store.transfer import estimating
from fsmount.store.transfer.estimating import estimate
from fsmount.store.writable_store import WritableStore
from tests.e2e.commands import well
from tests.support import corpus
from tests.support.frames import png, screens
from tests.support.legacies import convert, minutes
from tests.support.trees import import_into

pytestmark = pytest.mark.usefixtures("inline_archives")


def quiet(files: int, count: int) -> None:
    return


def make_folder(folder: Path, count: int = 60) -> Path:
    folder.mkdir()
    for stem, frame in zip(minutes(count), screens(count, height=300, width=400), strict=True):
        (folder / f"{stem}.png").write_bytes(png(frame, level=1))
    (folder / "notes.txt").write_text("no picture")
    return folder


async def taken(root: Path, source: Path) -> int:
    await import_into(root, f"{source}/")
    store = open_read_store(root)
    try:
        return int(store.stats()["stored_bytes"])
    finally:
        store.close()


async def test_a_small_folder_is_encoded_whole(root: Path, tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in")
    before = sorted(os.listdir(source))
    found = await estimate(source, 60, quiet)
    assert (found.files, found.pictures, found.sampled, found.lost) == (61, 60, 60, [])
    assert found.bytes == sum(path.stat().st_size for path in source.iterdir())
    assert abs(found.stored_bytes / await taken(root, source) - 1) < 0.15
    assert found.low < found.stored_bytes < found.high
    assert sorted(os.listdir(source)) == before


async def test_stretches_of_a_large_folder_tell_of_the_rest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "WHOLE", 10)
    monkeypatch.setattr(estimating, "STRETCH", 5)
    source = make_folder(tmp_path / "in")
    items = estimating._Sample._items

    def some(sample: estimating._Sample, store: WritableStore) -> object:
        for number, item in enumerate(items(sample, store)):
            if number == 30:
                return
            yield item

    monkeypatch.setattr(estimating._Sample, "_items", some)
    found = await estimate(source, 60, quiet)
    assert (found.pictures, found.sampled) == (60, 30)
    true = await taken(root, source)
    assert found.low <= true <= found.high
    assert abs(found.stored_bytes / true - 1) < 0.3


async def test_time_is_kept(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "WHOLE", 10)
    monkeypatch.setattr(estimating, "STRETCH", 5)
    found = await estimate(make_folder(tmp_path / "in"), 0, quiet)
    assert 0 < found.sampled <= 10
    assert found.high > 1.5 * found.stored_bytes


async def test_a_folder_of_differences(root: Path, tmp_path: Path) -> None:
    source = make_folder(tmp_path / "in", 20)
    convert(source)
    hurt = sorted(source.glob("*.jxl"))[-1]
    hurt.write_bytes(b"nothing")
    found = await estimate(source, 60, quiet)
    assert (found.pictures, found.sampled) == (20, 19)
    assert [path for path, _ in found.lost] == [str(hurt)]


async def test_a_long_run_of_differences_is_not_made_as_a_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture deep in a run needs all pictures before it.

    Estimate makes near ones first. It makes none that needs more time than is left.
    """
    monkeypatch.setattr(estimating, "WHOLE", 10)
    monkeypatch.setattr(estimating, "STRETCH", 5)
    monkeypatch.setattr(estimating, "_REACH", 10)
    monkeypatch.setattr(estimating, "_MAKE_S", 2.0)
    source = make_folder(tmp_path / "in")
    assert len(convert(source)) > 50
    found = await estimate(source, 60, quiet)
    # Half the time is not enough for a picture that needs 30 or more others.
    assert 10 <= found.sampled <= 30
    assert found.lost == []
    true = await taken(root, source)
    assert found.low <= true <= found.high


@pytest.mark.usefixtures("root")
async def test_making_what_is_not_looked_at_is_no_part_of_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "WHOLE", 10)
    monkeypatch.setattr(estimating, "STRETCH", 5)
    source = make_folder(tmp_path / "in")
    convert(source)
    decode = Archive.decode
    made: list[int] = []
    aside: list[int] = []

    async def slow(reader: Archive, folder: Path, name: bytes) -> Decoded:
        place = reader.scan(folder).positions[name][1]
        # Wait as if the run were made from its beginning, unless the picture before was just made.
        jumped = made[-1:] != [place - 1]
        aside.append(jumped * place)
        await trio.sleep(0.02 * (1 + jumped * place))
        made.append(place)
        return await decode(reader, folder, name)

    monkeypatch.setattr(Archive, "decode", slow)
    start = time.monotonic()
    found = await estimate(source, 60, quiet)
    whole = time.monotonic() - start
    assert found.sampled == found.pictures == 60
    assert sum(aside) > 200
    assert found.seconds < whole - 0.7 * 0.02 * sum(aside)


def test_real_screenshots(tmp_path: Path) -> None:
    """The command predicts the size after an import within 15 %, and writes nothing anywhere."""
    found = corpus.files("desk")
    source = tmp_path / "in"
    source.mkdir()
    for path in found if os.environ.get("FSMOUNT_CORPUS_FULL") else found[40:60]:
        shutil.copy2(path, source)
    before = sorted(os.listdir(source))
    start = time.monotonic()
    told = json.loads(well("estimate", source, "--json"))
    assert time.monotonic() - start < 60
    assert sorted(os.listdir(source)) == before
    assert told["raw_reasons"] == {}
    assert told["recreated"] == told["sampled"] == told["pictures"]
    well("init", tmp_path / "store")
    well("import", f"{source}/", tmp_path / "store")
    true = json.loads(well("stats", tmp_path / "store", "--json"))["stored_bytes"]
    assert abs(told["stored_bytes"] / true - 1) < 0.15
    assert told["stored_bytes_low"] <= true <= told["stored_bytes_high"]


async def test_a_folder_without_pictures(root: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    found = await estimate(tmp_path / "in", 60, quiet)
    assert (found.files, found.pictures, found.sampled) == (0, 0, 0)


def test_spread() -> None:
    assert list(estimating._spread(6)) == [0, 4, 2, 1, 5, 3]
    assert list(estimating._spread(1)) == [0]
    assert list(estimating._spread(0)) == []
