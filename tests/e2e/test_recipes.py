"""The scripts of docs/recipes.md work as described."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.e2e.commands import well
from tests.e2e.mounts import missing
from tests.support.paths import CHECKOUT
from tests.support.trees import REAL

RECIPES = CHECKOUT / "docs" / "recipes.md"


def script(name: str) -> str:
    """The shell script whose second line starts with the name."""
    for found in re.findall(r"```sh\n(#!/bin/sh\n.*?)```", RECIPES.read_text(), re.DOTALL):
        if found.splitlines()[1].startswith(f"# {name} "):
            return str(found)
    raise AssertionError(f"no script {name}")


def page(lines: list[str], target: Path) -> None:
    """Write lines of large text as a screenshot."""
    picture = Image.new("RGB", (900, 500), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(32)
    for number, line in enumerate(lines):
        pen.text((40, 30 + 70 * number), line, fill="black", font=font)
    picture.save(target, compress_level=6)


def run(text: str, folder: Path, *arguments: str | Path, **variables: str) -> str:
    """Run a script with our commands on the PATH. Returns its stdout."""
    recipe = folder / "recipe"
    recipe.write_text(text)
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", recipe, *arguments],
        env={**os.environ, "PATH": tools, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.skipif(shutil.which("gocryptfs") is None, reason="gocryptfs is not installed")
def test_an_encrypted_store(tmp_path: Path) -> None:
    cipher, plain, shots = (tmp_path / name for name in ("cipher", "plain", "shots"))
    password = tmp_path / "password"
    password.write_text("secret")
    try:
        for turn in range(2):
            run(script("encrypted-open"), tmp_path, cipher, plain, shots, PASSFILE=str(password))
            for picture in REAL.iterdir():
                if not turn:
                    shutil.copy(picture, shots)
                assert (shots / picture.name).read_bytes() == picture.read_bytes()
            run(script("encrypted-close"), tmp_path, plain, shots)
            assert not list(plain.iterdir())
            kept = [path for path in cipher.rglob("*") if path.is_file()]
            assert kept
            assert not any(b"SQLite" in path.read_bytes() for path in kept)
            assert not any("index" in path.name or ".zip" in path.name for path in kept)
    finally:
        for place in (shots, plain):
            if os.path.ismount(place):
                subprocess.run(["umount", "-l", place], check=True)


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
    read_out = run(script("ocr-day"), tmp_path, store, "day")
    found = dict(line.split("\t", 1) for line in read_out.splitlines())
    read = [found[f"day/2024-06-06T10:0{number}:00+00:00.png"].lower() for number in range(4)]
    assert "harbour" in read[0]
    assert "window" in read[1] and "harbour" not in read[1]
    assert "notes" in read[2] and "window" not in read[2]
    assert read[3].strip() == ""
