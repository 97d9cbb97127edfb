"""Reading the text of stores: what is read, what is carried over, what is removed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.errors import NoEngine, TextLocked
from fsmount.store.index import ROOT
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store
from fsmount.text.database import path_of, writing
from fsmount.text.engines import Picture
from fsmount.text.exclusions import Exclusions, Hours
from fsmount.text.making import read_text
from fsmount.text.results import Rectangle
from tests.support.drawn_words import DrawnEngine, blank, draw, save, screen
from tests.support.shots import Shots
from tests.support.trees import import_into

pytestmark = pytest.mark.usefixtures("inline")
# Lines that the pictures of a desktop have, too.
PANEL = [("menu files edit view", 10, 2), ("clock", 400, 2)]


@pytest.fixture
def shots(tmp_path: Path) -> Shots:
    return Shots(tmp_path)


async def test_only_what_is_new_is_read(shots: Shots) -> None:
    pictures = [screen([*PANEL, ("first text", 40, 100)]) for _ in range(4)]
    draw(pictures[2], "added", 40, 200)
    draw(pictures[3], "added", 40, 200)
    await shots.add(pictures)
    summary = shots.read()
    assert (summary.read, summary.left, summary.problems) == (4, 0, [])
    assert summary.effort.read == 2
    # Blank parts are not read, and one small area later.
    assert all(height * width < 0.1 * 320 * 480 for height, width in shots.engine.areas)
    assert shots.engine.texts.count("menu") == 1
    assert shots.engine.texts[-1] == "added"
    assert shots.words(0) == {
        "menu": (10, 2),
        "files": (49, 2),
        "edit": (94, 2),
        "view": (133, 2),
        "clock": (400, 2),
        "first": (40, 100),
        "text": (85, 100),
    }
    assert shots.words(1) == shots.words(0)
    assert shots.words(3) == shots.words(0) | {"added": (40, 200)}
    assert shots.hits("first") == [("08:00", "08:03", 4)]
    assert shots.hits("added first") == [("08:02", "08:03", 2)]


async def test_a_word_that_grows_is_read_as_a_whole(shots: Shots) -> None:
    await shots.add(
        [screen([(text, 30, 50)]) for text in ("he", "hello", "hello wor", "hello world")]
    )
    shots.read()
    assert [sorted(shots.words(minute)) for minute in range(4)] == [
        ["he"],
        ["hello"],
        ["hello", "wor"],
        ["hello", "world"],
    ]
    assert shots.hits("hello") == [("08:01", "08:03", 3)]


async def test_scrolled_text_is_found_at_its_new_place(shots: Shots) -> None:
    lines = [f"line{n:02d} some{n:02d} text{n:02d} here{n:02d}" for n in range(30)]
    pictures = []
    for offset in (0, 7, 21):
        page = blank(480, 700)
        for number, line in enumerate(lines):
            draw(page, line, 20, 20 * number)
        pictures.append(np.ascontiguousarray(page[offset : offset + 320]))
    await shots.add(pictures)
    shots.read()
    for minute, offset in enumerate((0, 7, 21)):
        found = shots.words(minute)
        for number in range(2, 15):
            assert found[f"text{number:02d}"][1] == 20 * number - offset
    assert shots.hits("text10") == [("08:00", "08:02", 3)]
    # The text that moved was not read again: below it, new lines came.
    assert shots.engine.texts.count("text08") == 1


async def test_a_window_that_comes_back_is_not_read_again(shots: Shots) -> None:
    one = screen([*PANEL, *((f"alpha{n} beta{n}", 30, 40 + 24 * n) for n in range(10))])
    two = screen([*PANEL, *((f"gamma{n} delta{n}", 60, 45 + 24 * n) for n in range(10))])
    await shots.add([one, two, one, two])
    shots.read()
    assert shots.words(2) == shots.words(0)
    assert shots.words(3) == shots.words(1)
    assert shots.engine.texts.count("alpha3") == 1
    assert shots.hits("alpha3") == [("08:02", "08:02", 1), ("08:00", "08:00", 1)]


async def test_a_stopped_run_goes_on(shots: Shots) -> None:
    pictures = [
        screen([*PANEL, *((f"word{m}", 20 + 60 * (m % 6), 60 + 30 * (m // 6)) for m in range(n))])
        for n in range(30)
    ]
    await shots.add(pictures)
    stopped = shots.read(most=9)
    assert 5 < stopped.read < 10
    assert stopped.left == 30 - stopped.read
    assert shots.words(5).keys() >= {"word4", "menu"}
    summary = shots.read()
    assert (summary.read, summary.left) == (stopped.left, 0)
    assert "menu" not in shots.engine.texts
    assert shots.hits("word3") == [("08:04", "08:29", 26)]
    assert shots.read().read == 0
    await shots.add([pictures[-1]])
    assert shots.read().read == 1
    assert shots.engine.texts == []
    assert shots.hits("word3") == [("08:04", "08:30", 27)]


async def test_older_pictures_that_come_later(shots: Shots) -> None:
    await shots.add([screen([("late", 20, 20)])], start=30)
    shots.read()
    await shots.add([screen([("early", 20, 20)])], start=5)
    shots.read()
    assert list(shots.words(5)) == ["early"]
    assert list(shots.words(30)) == ["late"]


async def test_a_pause_ends_a_stretch(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)])] * 2)
    await shots.add([screen([("word", 20, 20)])], start=100)
    shots.read()
    assert shots.hits("word") == [("09:40", "09:40", 1), ("08:00", "08:01", 2)]


async def test_words_of_deleted_pictures_go(shots: Shots) -> None:
    secrets = "zebra", "quartz", "violin"
    await shots.add([screen([("harmless", 20, 20), (secret, 20, 60)]) for secret in secrets])
    shots.read()
    assert shots.hits("quartz")
    shots.prune(0)
    shots.unlink(1)
    assert not shots.hits("quartz")
    assert shots.read().removed == 2
    assert shots.hits("harmless") == [("08:02", "08:02", 1)]
    data = b"".join(path.read_bytes() for path in shots.root.glob("text.sqlite*"))
    assert b"zebra" not in data
    assert b"quartz" not in data
    assert b"uart" not in data


async def test_a_changed_picture_is_read_again(shots: Shots) -> None:
    await shots.add([screen([("before", 20, 20)])])
    shots.read()
    save(screen([("after", 20, 20)]), shots.source / shots.name(0))
    await import_into(shots.root, shots.source)
    assert shots.read().read == 1
    assert list(shots.words(0)) == ["after"]
    assert not shots.hits("before")


async def test_excluded_areas_are_not_given_to_the_engine(shots: Shots) -> None:
    await shots.add([screen([("secret", 100, 100), ("open", 20, 200)])] * 2)
    summary = shots.read(more=Exclusions(areas=(Rectangle(90, 90, 200, 40),)))
    assert summary.read == 2
    assert shots.engine.texts == ["open"]
    assert list(shots.words(1)) == ["open"]
    # They are kept for later runs.
    assert Exclusions.read(Layout(shots.root)).areas == (Rectangle(90, 90, 200, 40),)


async def test_excluded_hours(shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    await shots.add([screen([("early", 20, 20)])], start=0)
    await shots.add([screen([("late", 20, 20)])], start=90)
    shots.read(more=Exclusions(hours=(Hours(9 * 60, 10 * 60),)))
    assert list(shots.words(0)) == ["early"]
    assert shots.words(90) == {}
    assert shots.engine.texts == ["early"]


async def test_what_is_excluded_later_is_wiped_out(shots: Shots) -> None:
    await shots.add([screen([("hidden", 100, 100), ("open", 20, 200)])] * 2)
    shots.read()
    assert shots.hits("hidden")
    Exclusions(areas=(Rectangle(90, 90, 200, 40),)).write(Layout(shots.root))
    shots.read()
    Exclusions().write(Layout(shots.root))
    assert not shots.hits("hidden")
    assert b"hidden" not in path_of(Layout(shots.root)).read_bytes()


async def test_files_that_are_no_pictures(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)])])
    (shots.source / shots.name(1)).write_bytes(b"no picture at all" * 100)
    (shots.source / "notes.txt").write_text("word")
    await import_into(shots.root, shots.source)
    summary = shots.read()
    assert summary.read == 1
    assert [path for path, _ in summary.problems] == [f"desk/{shots.name(1)}"]
    assert shots.read().problems == []


async def test_damaged_pictures_are_tried_again(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)]), np.full((64, 64, 3), 9, np.uint8)])
    pack = next((shots.root / "packs").glob("*.zip"))
    whole = pack.read_bytes()
    for parity in (shots.root / "packs").glob("*.parity"):
        parity.unlink()
    pack.write_bytes(bytes(len(whole)))
    assert len(shots.read().problems) == 2
    pack.write_bytes(whole)
    assert shots.read().read == 2


async def test_palettes_greys_and_alpha(shots: Shots) -> None:
    picture = screen([("word", 20, 20)])
    save(picture, shots.source / shots.name(0))
    Image.fromarray(picture).convert("RGBA").save(shots.source / shots.name(1))
    Image.fromarray(picture).quantize(256).save(shots.source / shots.name(2))
    await import_into(shots.root, shots.source)
    assert shots.read().problems == []
    assert list(shots.words(0)) == list(shots.words(1)) == list(shots.words(2)) == ["word"]


async def test_one_reader_at_a_time(shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmount.text.making._WAIT_S", 0.0)
    await shots.add([screen([("word", 20, 20)])])
    with writing(Layout(shots.root)), pytest.raises(TextLocked):
        shots.read()
    assert shots.read().read == 1


async def test_afresh(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)])])
    shots.read()
    assert shots.read(afresh=True).read == 1
    assert list(shots.words(0)) == ["word"]


async def test_since(shots: Shots) -> None:
    await shots.add([screen([("early", 20, 20)])], start=0)
    await shots.add([screen([("late", 20, 20)])], start=90)
    with open_read_store(shots.root) as store:
        folder = store.index.lookup(ROOT, b"desk")
        assert folder is not None
    at = time.mktime(time.strptime("2024-06-06 09:00", "%Y-%m-%d %H:%M"))
    assert shots.read(since_us=int(at * 1e6)).read == 1
    assert shots.words(0) == {}
    assert list(shots.words(90)) == ["late"]
    assert shots.read().read == 1


async def test_an_engine_that_fails_loses_nothing(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)]), screen([("other", 20, 20)])])

    class Failing(DrawnEngine):
        def read(self, picture: Picture) -> list:  # type: ignore[type-arg]
            if self.areas:
                raise NoEngine("it failed")
            return super().read(picture)

    with open_read_store(shots.root) as store, pytest.raises(NoEngine):
        read_text(store, Failing)
    assert list(shots.words(0)) == ["word"]
    assert shots.read().read == 1
    assert list(shots.words(1)) == ["other"]


async def test_the_database_is_private(shots: Shots) -> None:
    await shots.add([screen([("word", 20, 20)])])
    shots.read(more=Exclusions(areas=(Rectangle(1, 1, 2, 2),)))
    found = sorted(shots.root.glob("text*"))
    assert len(found) >= 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
