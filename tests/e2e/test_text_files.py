"""The text of pictures as files of a mount."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.store.store import open_read_store
from fsmount.text.making import read_text
from tests.e2e.mounts import Mount, missing
from tests.support.drawn_words import DrawnEngine, save, screen

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


@pytest.fixture(name="mount")
def a_mount(tmp_path: Path) -> Iterator[Mount]:
    made = Mount(tmp_path, "views")
    made.start()
    yield made
    made.clean()


def fill(mount: Mount) -> None:
    (mount.path / "desk").mkdir()
    for hour, word in enumerate(("alpha", "beta", "gamma")):
        picture = screen([("second line", 20, 80), (f"{word} first", 20, 40)])
        save(picture, mount.path / f"desk/2024-06-06T{hour:02}:00:00.png")
    (mount.path / "notes.txt").write_text("no picture")
    while os.getxattr(mount.path, "user.fsmount.staged") != b"0":
        time.sleep(0.05)


def read(mount: Mount) -> None:
    """Read the text beside the mount, and wait until the kernel asks again."""
    with open_read_store(mount.store) as store:
        read_text(store, DrawnEngine)
    time.sleep(1.1)


def test_texts_are_files(mount: Mount) -> None:
    fill(mount)
    folder = mount.path / ".fsmount/text"
    assert sorted(os.listdir(mount.path / ".fsmount")) == ["by-day", "changed", "text"]
    assert os.listdir(folder) == ["desk"]
    assert os.listdir(folder / "desk") == []
    read(mount)
    names = [f"2024-06-06T{hour:02}:00:00.png.txt" for hour in range(3)]
    assert sorted(os.listdir(folder / "desk")) == names
    shown = folder / "desk" / names[1]
    text = b"beta first\nsecond line\n"
    assert shown.read_bytes() == text
    info = shown.stat()
    assert (info.st_size, stat.S_IMODE(info.st_mode) & 0o222) == (len(text), 0)
    assert info.st_mtime == (mount.path / "desk" / names[1].removesuffix(".txt")).stat().st_mtime
    found = subprocess.run(
        ["grep", "-rl", "gamma", folder], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == [str(folder / "desk" / names[2])]
    listed = subprocess.run(["ls", "-lR", folder], capture_output=True, text=True, check=True)
    assert listed.stdout.count(f" {len(text)} ") == 1
    mount.stop()


def test_texts_go_with_their_pictures_and_cannot_be_changed(mount: Mount) -> None:
    fill(mount)
    read(mount)
    folder = mount.path / ".fsmount/text/desk"
    first = folder / "2024-06-06T00:00:00.png.txt"
    assert first.exists()
    for change in (
        first.unlink,
        lambda: first.write_text("x"),
        lambda: first.rename(folder / "other"),
        (folder / "new").mkdir,
        lambda: (folder / "new").write_text("x"),
        folder.rmdir,
        lambda: os.link(first, folder / "link"),
    ):
        with pytest.raises(OSError):
            change()
    (mount.path / "desk/2024-06-06T00:00:00.png").unlink()
    time.sleep(1.1)
    assert not first.exists()
    assert len(os.listdir(folder)) == 2
    with pytest.raises(FileNotFoundError):
        (folder / "2024-06-06T01:00:00.png").stat()
    mount.stop()
