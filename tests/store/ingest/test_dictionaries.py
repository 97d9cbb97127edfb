"""Dictionaries of earlier tiles: when they come, who names them, and what becomes of them."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.dictionary import make_dictionary
from fsmount.store.index import ROOT, Object
from fsmount.store.ingest import dictionaries
from fsmount.store.ingest.claims import Claim
from fsmount.store.ingest.committer import Committer
from fsmount.store.ingest.dictionaries import Dictionaries
from fsmount.store.ingest.outcome import Appended, Retry
from fsmount.store.packs import entries
from fsmount.store.packs.pack import Entry, scan
from fsmount.store.recovery import repair
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from tests.support.encoding import (
    Inline,
    forget_caches,
    put,
    reopened,
    settled,
    unlink_staged,
)
from tests.support.frames import FlakyDisk, png
from tests.support.paths import CHECKOUT

pytestmark = pytest.mark.usefixtures("inline")


def clocks(count: int, seed: int = 1) -> list[Frame]:
    """An idle screen: a pattern, a bar, five digits of a clock that change, and a graph.

    Digits and graph have many colours, so that a dictionary beats other formats.
    """
    source = np.random.default_rng(seed)
    digits = source.integers(0, 256, (10, 12, 8, 1), np.uint8)
    colours = source.integers(0, 256, (30, 50, 3), np.uint8)
    screen = np.repeat(source.integers(0, 4, (96, 160, 1), np.uint8), 3, axis=2) * np.uint8(60)
    out = []
    for number in range(count):
        frame = screen.copy()
        frame[2:14, 4:150] = (30, 40, 60)
        for place, digit in enumerate(f"{97 * number:05d}"):
            frame[2:14, 6 + 30 * place : 14 + 30 * place] = digits[int(digit)]
        level = source.integers(0, 30) > np.arange(30)
        frame[60:90, 40:90] = level[::-1, None, None] * colours
        frame[60:90, 40:90:7] = digits[number % 10, 0, 0] + number % 50
        out.append(frame)
    return out


def files(count: int) -> dict[bytes, bytes]:
    return {b"%03d.png" % number: png(frame) for number, frame in enumerate(clocks(count))}


async def fill(root: Path, wanted: dict[bytes, bytes], count: int = 2) -> None:
    with open_store(root) as opened:
        async with opened.running(count=count) as store:
            for name, data in wanted.items():
                put(store, name, data)
            await settled(store, wanted)


def objects(root: Path) -> list[Object]:
    with open_read_store(root) as opened:
        return list(opened.index.all_objects())


def made(root: Path) -> list[Object]:
    return [found for found in objects(root) if found.kind == entries.DICTIONARY]


def entry_of(root: Path) -> dict[int, Entry]:
    packs = sorted((root / "packs").glob("*.zip"))
    return {entry.object_id: entry for path in packs for _, _, entry in scan(path)}


async def test_small_pictures_name_the_newest_dictionary(root: Path) -> None:
    wanted = files(60)
    await fill(root, wanted)
    found = made(root)
    assert len(found) == 2, "after 8 and after 24 more"
    coded = entry_of(root)
    for each in objects(root):
        named = coded[each.id].dictionary
        assert named in (0, *(dictionary.id for dictionary in found))
        assert bool(named) == (named in each.layer)
        assert bool(named) == (named in each.needs)
        assert named < each.id
        # The frame of the plan that it was made behind is its last tile.
        newest = max((other.id for other in found if other.id < each.id), default=0)
        assert named in (0, newest)
    late = [each for each in objects(root) if each.id > found[1].id]
    assert all(coded[each.id].dictionary for each in late)
    assert max(len(coded[each.id].payload) for each in late) < 300
    await reopened(root, wanted)


async def test_the_entries_do_not_depend_on_the_number_of_workers(root: Path) -> None:
    wanted = files(40)
    await fill(root, wanted, 1)
    alone = {number: entry.payload for number, entry in entry_of(root).items()}
    shutil.rmtree(root)
    forget_caches()
    config.make(root, Disk())
    await fill(root, wanted, 4)
    assert {number: entry.payload for number, entry in entry_of(root).items()} == alone


async def test_a_dictionary_is_found_again_after_a_start(root: Path) -> None:
    wanted = files(20)
    await fill(root, dict(list(wanted.items())[:12]))
    (dictionary,) = made(root)
    await fill(root, dict(list(wanted.items())[12:]))
    assert made(root) == [dictionary]
    newest = max(entry_of(root).values(), key=lambda entry: entry.object_id)
    assert newest.dictionary == dictionary.id


async def test_deep_samples_get_none(root: Path) -> None:
    wanted = {
        b"%02d.png" % number: png(frame.astype(np.uint16) * np.uint16(257))
        for number, frame in enumerate(clocks(14))
    }
    await fill(root, wanted)
    assert made(root) == []
    await reopened(root, wanted)


async def test_without_a_dictionary_pictures_are_only_larger(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    async def before(function: object) -> None:
        coded.append(function)

    coded: list[object] = []
    monkeypatch.setattr(dictionaries, "make_dictionary", fail)
    monkeypatch.setattr(Inline, "before", staticmethod(before))
    wanted = files(30)
    with caplog.at_level(logging.WARNING):
        await fill(root, wanted, 4)
    assert made(root) == []
    assert coded.count(jobs.encode) == 30, "no picture is coded twice for it"
    assert "no dictionary" in caplog.text
    assert all(found.kind in ("key", "delta") for found in objects(root))
    await reopened(root, wanted)


async def test_the_dictionary_before_stays_if_none_can_be_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail_later(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("planted")
        return make_dictionary(*arguments)

    monkeypatch.setattr(dictionaries, "make_dictionary", fail_later)
    wanted = files(60)
    await fill(root, wanted)
    assert calls == 2
    (dictionary,) = made(root)
    late = [entry.dictionary for number, entry in entry_of(root).items() if number > 50]
    assert set(late) == {dictionary.id}
    await reopened(root, wanted)


async def test_noise_makes_none(root: Path) -> None:
    source = np.random.default_rng(1)
    wanted = {}
    for number, frame in enumerate(clocks(14)):
        frame[16:48, 16:48] = source.integers(0, 256, (32, 32, 3))
        wanted[b"%02d.png" % number] = png(frame)
    await fill(root, wanted)
    assert made(root) == []
    await reopened(root, wanted)


@pytest.mark.parametrize("gone", [3, 8, 9, 12])
async def test_files_that_are_removed_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    """The dictionary is planned behind the ninth file, and made of those before it."""
    wanted = files(30)
    removed = list(wanted)[gone]

    async def before(function: object) -> None:
        if function is make_dictionary and removed in wanted:
            del wanted[removed]
            # A file that is encoded already has no staged body.
            if store.index.inode(inodes[removed]).staged is not None:
                unlink_staged(store, removed)
            else:
                store.index.purge(store.index.unlink(ROOT, removed, 1).ino)

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    inodes: dict[bytes, int] = {}
    with open_store(root) as opened:
        async with opened.running(count=2) as store:
            for name, data in list(wanted.items()):
                inodes[name] = put(store, name, data)
            await store.drain()
    assert len(wanted) == 29
    assert len(made(root)) >= 1
    await reopened(root, wanted)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("skip", [0, 2, 5, 9])
async def test_a_disk_that_fails(root: Path, disk: FlakyDisk, call: str, skip: int) -> None:
    wanted = files(30)
    with open_store(root, disk=disk) as opened:
        async with opened.running(count=2) as store:
            for name, data in wanted.items():
                put(store, name, data)
            disk.fail_once(call, skip=skip)
            await store.drain()
    await reopened(root, wanted)
    with open_read_store(root) as reading:
        async with reading.running(count=1) as reader:
            report = check_relations(reader)
            await check_contents(reader, report, lambda count: None)
    assert not report.findings


async def test_a_damaged_dictionary_is_damage_of_all_that_need_it(root: Path) -> None:
    wanted = files(20)
    await fill(root, wanted)
    (dictionary,) = made(root)
    path = root / "packs" / f"{dictionary.pack:08}.zip"
    data = bytearray(path.read_bytes())
    data[dictionary.offset + dictionary.length - 9] ^= 1
    path.write_bytes(data)
    for other in (root / "packs").glob("*.parity"):
        other.unlink()
    forget_caches()
    needing = [found for found in objects(root) if dictionary.id in found.needs]
    assert len(needing) > 5
    with open_read_store(root) as opened:
        async with opened.running(count=1) as store:
            for found in needing:
                with pytest.raises(Damaged):
                    await store.body(found.id)
            report = check_relations(store)
            await check_contents(store, report, lambda count: None)
    assert {found.id for found in needing} <= report.unreadable
    assert report.damaged == {dictionary.id}


async def test_a_rebuilt_index_has_no_file_for_a_dictionary(root: Path) -> None:
    wanted = files(20)
    await fill(root, wanted)
    before = objects(root)
    for name in ("index.sqlite", "packs/names.gz"):
        (root / name).unlink()
    assert repair.rebuild_index(root, Disk()).rebuilt
    with open_read_store(root) as opened:
        names = {name for _, name, _ in opened.index.names()}
    assert names == set(wanted)
    kept = [(found.id, found.kind, found.needs, found.layer) for found in before]
    assert [(f.id, f.kind, f.needs, f.layer) for f in objects(root)] == kept
    await reopened(root, wanted)


@pytest.mark.parametrize("source", ["", "packs"])
async def test_the_script_reads_dictionaries(root: Path, tmp_path: Path, source: str) -> None:
    wanted = files(20)
    await fill(root, wanted)
    script, out = str(CHECKOUT / "contrib/unpack.py"), tmp_path / "out"
    command: list[str] = [sys.executable, script, str(root / source), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name.encode(): path.read_bytes() for path in out.iterdir()} == wanted


async def test_a_picture_is_not_appended_if_all_was_given_up_while_it_waited_for_its_dictionary(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = Dictionaries.append, Committer.add
    given_up: list[int] = []
    void: list[object] = []

    async def append(self: Dictionaries, before: int, claim: Claim) -> None:
        await real(self, before, claim)
        if not given_up and any(self._index.all_objects()):
            given_up.append(before)
            # As after a failed commit.
            await opened._encoder._committer._give_up([])

    def add(self: Committer, outcome: Appended | Retry) -> None:
        if isinstance(outcome, Appended) and self._claims.is_void(outcome.claim):
            void.append(outcome)
        made(self, outcome)

    monkeypatch.setattr(Dictionaries, "append", append)
    monkeypatch.setattr(Committer, "add", add)
    wanted = files(12)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for name, data in wanted.items():
            put(store, name, data)
            await store.drain()
        await settled(store, wanted)
    opened.close()
    assert given_up
    assert void == []
    await reopened(root, wanted)
