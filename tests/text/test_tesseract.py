"""The engine tesseract, with the real program."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from fsmount.errors import NoEngine
from fsmount.text.engines import Picture
from fsmount.text.tesseract import Tesseract


@pytest.fixture(name="engine")
def an_engine() -> Iterator[Tesseract]:
    made = Tesseract(["eng"])
    yield made
    made.close()


def page(*lines: str) -> Picture:
    made = Image.new("RGB", (520, 20 + 40 * len(lines)), "white")
    pen = ImageDraw.Draw(made)
    for number, line in enumerate(lines):
        pen.text((20, 10 + 40 * number), line, "black", ImageFont.load_default(24))
    return np.asarray(made)


def texts(engine: Tesseract, picture: Picture) -> list[str]:
    return [word.text for word in engine.read(picture)]


def test_words_and_their_places(engine: Tesseract) -> None:
    found = engine.read(page("The quick brown fox", "jumps over"))
    assert [word.text for word in found] == ["The", "quick", "brown", "fox", "jumps", "over"]
    first, *_, last = found
    assert abs(first.place.x - 20) <= 4
    assert 10 <= first.place.y <= 20
    assert last.place.y > 50
    assert all(word.confidence > 60 for word in found)
    assert engine.name.startswith("tesseract ")


def test_light_letters_on_a_dark_ground(engine: Tesseract) -> None:
    dark = 255 - page("The quick brown fox")
    assert texts(engine, dark) == ["The", "quick", "brown", "fox"]


def test_many_pictures_by_one_process(engine: Tesseract) -> None:
    assert texts(engine, page("alpha beta")) == ["alpha", "beta"]
    assert texts(engine, np.full((40, 60, 3), 255, np.uint8)) == []
    assert texts(engine, page("gamma")) == ["gamma"]
    # Smaller than anything that tesseract can read.
    assert texts(engine, np.zeros((1, 1, 3), np.uint8)) == []
    assert texts(engine, page("delta")) == ["delta"]


def test_a_process_that_died_is_replaced(engine: Tesseract) -> None:
    assert texts(engine, page("alpha")) == ["alpha"]
    assert engine._process is not None
    os.kill(engine._process.pid, signal.SIGKILL)
    assert texts(engine, page("beta")) == ["beta"]


def test_a_process_that_cannot_work_is_an_error(
    engine: Tesseract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.text.tesseract._PROGRAM", "false")
    with pytest.raises(NoEngine, match="tesseract failed"):
        engine.read(page("alpha"))


def test_a_missing_language() -> None:
    with pytest.raises(NoEngine, match="apt install tesseract-ocr-xyz"):
        Tesseract(["xyz"])


def test_a_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoEngine, match="tesseract is not installed"):
        Tesseract()
