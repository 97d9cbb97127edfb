"""The scripts of docs/recipes.md do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.e2e.test_cli import well

RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"


def script(name: str) -> str:
    """The shell script whose second line names it."""
    for found in re.findall(r"```sh\n(#!/bin/sh\n.*?)```", RECIPES.read_text(), re.DOTALL):
        if found.splitlines()[1].startswith(f"# {name} "):
            return str(found)
    raise AssertionError(f"no script {name}")


def page(lines: list[str], target: Path) -> None:
    """Lines of large text as a screenshot."""
    picture = Image.new("RGB", (900, 500), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(32)
    for number, line in enumerate(lines):
        pen.text((40, 30 + 70 * number), line, fill="black", font=font)
    picture.save(target, compress_level=6)


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_a_day_is_read_once(tmp_path: Path) -> None:
    day = tmp_path / "day"
    day.mkdir()
    lines = ["Hello harbour", "Second window", "Meeting notes"]
    for number in range(3):
        page(lines[: number + 1], day / f"2024-06-06T10:0{number}:00+00:00.png")
    shutil.copy2(day / "2024-06-06T10:02:00+00:00.png", day / "2024-06-06T10:03:00+00:00.png")
    store = tmp_path / "store"
    well("init", store)
    well("import", day, store)
    # Small pictures: what they add is below what an idle desktop adds.
    text = script("ocr-day").replace('if run["kind"] == "busy":', "if True:")
    recipe = tmp_path / "ocr-day"
    recipe.write_text(text)
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", recipe, store, "day"],
        env={**os.environ, "PATH": tools},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    read = [found[f"day/2024-06-06T10:0{number}:00+00:00.png"].lower() for number in range(4)]
    assert "harbour" in read[0]
    assert "window" in read[1] and "harbour" not in read[1]
    assert "notes" in read[2] and "window" not in read[2]
    assert read[3].strip() == ""
