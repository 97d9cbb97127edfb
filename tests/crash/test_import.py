"""kill -9 of `fsmount import --delete-source` at random moments loses no picture.

FSMOUNT_KILLS sets the number of kills (default 12), FSMOUNT_SEED their moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_read_store
from tests.support import corpus
from tests.support.encoding import get
from tests.support.frames import png, screens
from tests.support.legacies import convert, samples

KILLS = int(os.environ.get("FSMOUNT_KILLS", "12"))
SEED = int(os.environ.get("FSMOUNT_SEED", "1"))


def command(source: Path, root: Path) -> list[str]:
    return [sys.executable, "-m", "fsmount", "import", "--delete-source", f"{source}/", str(root)]


def make_source(source: Path) -> None:
    """Make a source: screenshots, some of them in a folder of differences, and another file."""
    found = corpus.files("desk") if not os.environ.get("CI") else []
    (source / "old").mkdir(parents=True)
    (source / "new").mkdir()
    for path in found[20:30]:
        shutil.copy2(path, source / "old")
    for path in found[40:48]:
        shutil.copy2(path, source / "new")
    convert(source / "old")
    for number, frame in enumerate(screens(150)):
        (source / "new" / f"small {number:03d}.png").write_bytes(png(frame, level=1))
    (source / "notes.txt").write_text("kept")


async def pictures(root: Path, wanted: dict[str, bytes]) -> set[str]:
    """Names of the pictures in a store. Compares each picture with the wanted bytes or samples."""
    opened = open_read_store(root)
    found = set()
    try:
        async with opened.running(count=1) as store:
            for path, inode in store.index.walk():
                name = os.fsdecode(path)
                if inode.object_id is None and inode.staged is None:
                    continue
                data = await get(store, inode.ino)
                shown = wanted[name]
                if shown != data:
                    assert np.array(Image.open(BytesIO(data))).tobytes() == shown, name
                found.add(name)
    finally:
        opened.close()
    return found


def in_source(source: Path) -> set[str]:
    """Names of the pictures that are still in the source."""
    return {
        str(path.relative_to(source).with_suffix(".png" if path.suffix == ".jxl" else path.suffix))
        for path in source.rglob("*")
        if not path.is_dir()
    }


async def test_kills_of_an_import_that_deletes_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    source, root = tmp_path / "in", tmp_path / "store"
    make_source(source)
    originals = corpus.files("desk") if not os.environ.get("CI") else []
    # For a difference the wanted samples, for all other files the wanted bytes.
    wanted = {f"old/{path.name}": samples(path).tobytes() for path in originals[20:30]}
    wanted |= {
        str(path.relative_to(source)): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".jxl"
    }
    config.make(root, Disk())
    killed = 0
    while killed < KILLS:
        running = subprocess.Popen(command(source, root), stdout=subprocess.DEVNULL)
        try:
            running.wait(chance.uniform(0.3, 2))
            # The import ended before the kill. Give the next one new files.
            assert running.returncode == 0
            for number, frame in enumerate(screens(40, seed=killed)):
                name = f"more {killed} {number}.png"
                (source / name).write_bytes(png(frame, level=1))
                wanted[name] = (source / name).read_bytes()
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            killed += 1
        left = in_source(source)
        if killed % 10 == 5:
            assert left | await pictures(root, wanted) == set(wanted)
    done = subprocess.run(command(source, root), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done
    assert in_source(source) == set()
    assert await pictures(root, wanted) == set(wanted)
