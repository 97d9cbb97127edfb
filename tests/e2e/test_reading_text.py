"""A mount with `-o text,views` reads its pictures with the real tesseract while it is idle."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from fsmount.errors import NoText
from fsmount.mount.power_supply import on_mains
from fsmount.store.store import open_read_store
from fsmount.text.words import open_words
from tests.e2e.commands import well
from tests.e2e.mounts import TEXT_FIRST, Mount, missing

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(not on_mains(), reason="this machine runs on its battery"),
    pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed"),
]
SHOTS = {
    "2024-06-06T08:00:00.png": ("The quick brown fox",),
    "2024-06-06T08:01:00.png": ("The quick brown fox", "jumps over it"),
}


@pytest.fixture(name="mount")
def a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """A new mount, which reads text after one idle second, at normal priority."""
    monkeypatch.setenv(TEXT_FIRST, "1")
    made = Mount(tmp_path, "text=1,views")
    made.start()
    yield made
    made.clean()


def draw(lines: tuple[str, ...], path: Path) -> None:
    picture = Image.new("RGB", (520, 120), "white")
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((20, 10 + 40 * number), line, "black", ImageFont.load_default(24))
    picture.save(path)


def read(store: Path) -> int:
    """How many pictures were read. Asks the store, so that the mount stays idle."""
    try:
        with open_read_store(store) as opened, open_words(opened) as words:
            files = [inode.ino for _, _, _, inode in opened.index.named_files()]
            return sum(map(words.is_read, files))
    except NoText:
        return 0


def test_it_reads_what_programs_write(mount: Mount) -> None:
    for name, lines in SHOTS.items():
        draw(lines, mount.path / name)
    while os.getxattr(mount.path, "user.fsmount.staged") != b"0":
        time.sleep(0.05)
    end = time.monotonic() + 300
    while read(mount.store) < len(SHOTS):
        assert time.monotonic() < end, mount.log.read_text()
        time.sleep(0.2)
    found = well("search", mount.path, "brown fox")
    assert found.splitlines()[0].endswith("2024-06-06T08:01:00.png")
    assert "08:00 to 2024-06-06" in found or "08:00 to 08:01" in found
    assert "2024-06-06T08:01:00.png" in well("search", mount.path, '"jumps over"')
    shown = mount.path / ".fsmount/text"
    texts = {path.name: path.read_text() for path in shown.iterdir()}
    wanted = {f"{name}.txt": "\n".join(lines) + "\n" for name, lines in SHOTS.items()}
    assert texts == wanted
    mount.stop()
    assert "Error" not in mount.log.read_text()
