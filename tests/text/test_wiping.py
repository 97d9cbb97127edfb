"""Words of pictures that a store no longer shows are in no file of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fsmount.errors import TextDamaged, TextLocked
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.text import making, reading, wiping
from fsmount.text.database import TextDatabase, make_text, path_of, writing
from fsmount.text.engines import Picture, ReadWord
from fsmount.text.wiping import wipe_at
from tests.support.drawn_words import DrawnEngine, screen
from tests.support.shots import Shots

pytestmark = pytest.mark.usefixtures("inline")
SECRETS = "zebraquartz", "violinfjord", "sphinxglyph"


@pytest.fixture
def shots(tmp_path: Path) -> Shots:
    return Shots(tmp_path)


def found_in(root: Path) -> set[str]:
    """Which secrets are in the bytes of any file of a store, whole or without their beginning."""
    data = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    return {secret for secret in SECRETS if secret[3:].encode() in data}


async def three_secrets(shots: Shots) -> None:
    """Read three pictures, each of which shows a secret, in indexed slots and an open one."""
    for number, secret in enumerate(SECRETS):
        await shots.add([screen([("harmless", 20, 20), (secret, 20, 60)])], start=20 * number)
    shots.read()
    assert found_in(shots.root) == set(SECRETS)


async def test_words_of_what_went_are_in_no_file(shots: Shots) -> None:
    await three_secrets(shots)
    assert wipe_at(str(shots.root)) == (0, 0)
    shots.prune(0)
    shots.unlink(40)
    assert wipe_at(str(shots.root)) == (2, 0)
    assert found_in(shots.root) == {SECRETS[1]}
    assert shots.hits("harmless") == [("08:20", "08:20", 1)]
    assert shots.read().read == 0


@pytest.mark.parametrize(
    ("went", "hits"),
    [
        ([40], [("08:00", "08:20", 3)]),
        ([20, 40], [("08:00", "08:10", 2)]),
        ([0], [("08:10", "08:40", 3)]),
        ([10], [("08:00", "08:40", 3)]),
    ],
)
async def test_a_stretch_is_found_without_its_parts(
    shots: Shots, went: list[int], hits: list[tuple[str, str, int]]
) -> None:
    """The slot in which a stretch ended may be gone."""
    await shots.add([screen([("steady", 20, 20)])], start=0)
    for minute in (10, 20, 40):
        await shots.add([screen([("steady", 20, 20)])], start=minute)
    shots.read()
    assert shots.hits("steady") == [("08:00", "08:40", 4)]
    for minute in went:
        shots.prune(minute)
    assert wipe_at(str(shots.root)).removed == len(went)
    assert shots.hits("steady") == hits


async def test_it_stops_after_a_while_and_goes_on(
    shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiping, "_AT_ONCE", 1)
    await three_secrets(shots)
    for minute in (0, 20, 40):
        shots.prune(minute)
    done = [wipe_at(str(shots.root), 0.0) for _ in range(3)]
    assert done == [(1, 2), (1, 1), (1, 0)]
    assert found_in(shots.root) == set()


async def test_without_words_nothing_is_made(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)])])
    before = sorted(shots.root.iterdir())
    assert wipe_at(str(shots.root)) == (0, 0)
    assert sorted(shots.root.iterdir()) == before


async def test_what_a_killed_process_left_is_wiped_out(
    shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_secrets(shots)
    layout = Layout(shots.root)
    shots.prune(0)
    with closing(Index(layout.index, Disk(), read_only=True)) as index:
        identity = index.identity()
    # A second connection, so that closing does not empty the log.
    with make_text(layout, identity) as other:
        assert other.slot_numbers()
        with monkeypatch.context() as changed:
            changed.setattr(TextDatabase, "wipe", lambda self: None)
            assert wipe_at(str(shots.root)) == (1, 0)
        assert found_in(shots.root) >= {SECRETS[0]}
        assert wipe_at(str(shots.root)) == (0, 0)
        assert found_in(shots.root) == set(SECRETS[1:])


async def test_the_process_that_reads_text_does_it(
    shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune meanwhile finds the database in use."""
    monkeypatch.setattr(wiping, "_WAIT_S", 0.0)
    await shots.add([screen([(secret, 20, 60)]) for secret in SECRETS])
    refused = []

    class Pruned(DrawnEngine):
        def read(self, picture: Picture) -> list[ReadWord]:
            found = super().read(picture)
            if len(self.areas) == 3:
                shots.prune(0)
                shots.prune(2)
                with pytest.raises(TextLocked) as error:
                    wipe_at(str(shots.root))
                refused.append(error)
            return found

    monkeypatch.setattr("tests.support.shots.DrawnEngine", Pruned)
    assert shots.read().removed == 2
    assert refused
    assert found_in(shots.root) == {SECRETS[1]}


@pytest.mark.parametrize("prunes", [False, True])
async def test_a_long_reading_looks_now_and_then(
    shots: Shots, monkeypatch: pytest.MonkeyPatch, prunes: bool
) -> None:
    monkeypatch.setattr(reading, "_WIPE_EVERY_S", 0.0)
    lines = [("menu", 10, 2), ("steady", 20, 100)]
    await shots.add([screen([*lines, (f"word{n}", 20, 200)]) for n in range(6)])

    class Pruned(DrawnEngine):
        def read(self, picture: Picture) -> list[ReadWord]:
            found = super().read(picture)
            if prunes and [word.text for word in found] == ["word3"]:
                shots.prune(1)
            return found

    monkeypatch.setattr("tests.support.shots.DrawnEngine", Pruned)
    assert shots.read().removed == prunes
    assert shots.engine.texts.count("steady") == 1
    left = [n for n in range(6) if not (prunes and n == 1)]
    for n in left:
        assert shots.words(n) == {"menu": (10, 2), "steady": (20, 100), f"word{n}": (20, 200)}
    assert shots.hits("steady menu") == [("08:00", "08:05", len(left))]


async def test_a_reader_that_ends_is_waited_for(
    shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiping, "_WAIT_S", 60.0)
    await three_secrets(shots)
    shots.prune(0)
    looks = []

    def ends(lock: int) -> bool:
        looks.append(lock)
        return len(looks) > 2

    monkeypatch.setattr("fsmount.text.database._is_locked", ends)
    assert wipe_at(str(shots.root)) == (1, 0)


async def test_one_that_cannot_be_used_is_an_error(
    shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_WAIT_S", 0.0)
    monkeypatch.setattr(wiping, "_WAIT_S", 0.0)
    await three_secrets(shots)
    layout = Layout(shots.root)
    with writing(layout):
        with pytest.raises(TextLocked):
            wipe_at(str(shots.root))
        with pytest.raises(TextLocked):
            shots.read()
    with TextDatabase(path_of(layout), read_only=False) as database:
        database.set_fact("store", "another one")
    with pytest.raises(TextDamaged, match="another store or version"):
        wipe_at(str(shots.root))
    path_of(layout).write_bytes(b"no database" * 1000)
    with pytest.raises(TextDamaged):
        wipe_at(str(shots.root))
