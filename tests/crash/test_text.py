"""kill -9 of `fsmount text` at random moments costs no word, and no deleted word comes back.

FSMOUNT_KILLS sets the number of kills (default 4 while reading, and as many while words are
removed), FSMOUNT_SEED their moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store
from fsmount.text.database import TextDatabase, path_of
from fsmount.text.words import open_words
from tests.support.drawn_words import screen
from tests.support.paths import CHECKOUT
from tests.support.shots import Shots

KILLS = int(os.environ.get("FSMOUNT_KILLS", "4"))
SEED = int(os.environ.get("FSMOUNT_SEED", "1"))
COUNT = 48
State = tuple[dict[int, list[str]], dict[str, list[tuple[str, str, int]]]]


def secret(number: int) -> str:
    """The word that only one picture shows, and that shares no beginning with those of others."""
    letters = "".join(chr(ord("a") + int(digit)) for digit in f"{number * 7919 % 10_000:04d}")
    return f"{letters}secretz{letters}"


async def fill(shots: Shots) -> None:
    """Add pictures of four hours, which share lines, and each of which has words of its own."""
    pictures = []
    for number in range(COUNT):
        lines = [("menu files edit", 10, 2), (f"window{number // 6} title{number // 6}", 20, 40)]
        lines += [(f"line{number - n} of{n}", 20, 80 + 20 * n) for n in range(min(number, 8))]
        pictures.append(screen([*lines, (secret(number), 250, 300)]))
    for number, picture in enumerate(pictures):
        shots.count = 5 * number
        # Each five minutes, so that there are many slots.
        shots.draw(picture)
    await shots.take_in()


def run(root: Path) -> subprocess.Popen[str]:
    """Start a reading. Returns when it begins to work."""
    command = [sys.executable, "-m", "tests.support.drawn_reading", str(root)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def finish(root: Path) -> float:
    """Read to the end. Returns the seconds that it worked."""
    process = run(root)
    began = time.monotonic()
    assert process.communicate()[0] == ""
    assert process.returncode == 0
    return time.monotonic() - began


def kill_often(root: Path, seconds: float, before: Callable[[int], None]) -> int:
    """Kill readings after random parts of `seconds`; return how many were killed at work."""
    source = random.Random(SEED)
    killed = 0
    for number in range(KILLS):
        before(number)
        process = run(root)
        time.sleep(source.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    return killed


def check_whole(root: Path) -> None:
    """SQLite and FTS5 find no fault in the database."""
    with TextDatabase(path_of(Layout(root)), read_only=False) as database:
        assert database._all("PRAGMA integrity_check") == [("ok",)]
        for table in ("words", "vocabulary"):
            database._run(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")


def state(root: Path) -> State:
    """The words of each picture in reading order, and the hits of some queries."""
    queries = ["menu edit", "window3", '"title2 line12"', "line20", "li*", "*ndow4", secret(17)]
    with open_read_store(root) as store, open_words(store) as words:
        found = {
            inode.ino: [word.text for word in words.of_picture(inode.ino)]
            for _, _, _, inode in store.index.named_files()
        }
        hits = {
            query: [
                (hit.first.path.decode(), hit.last.path.decode(), hit.pictures)
                for hit in words.search(query, limit=100).hits
            ]
            for query in queries
        }
    return found, hits


@pytest.mark.usefixtures("inline")
async def test_kills_cost_no_word(tmp_path: Path) -> None:
    shots = Shots(tmp_path)
    await fill(shots)
    whole = tmp_path / "whole"
    shutil.copytree(shots.root, whole)
    seconds = finish(whole)
    wanted = state(whole)
    assert wanted[1][secret(17)]
    assert wanted[1]["li*"]
    killed = kill_often(shots.root, seconds / 2, lambda number: None)
    finish(shots.root)
    assert state(shots.root) == wanted
    check_whole(shots.root)
    # Now words are removed: each time those of three pictures go, and the process is killed.
    gone = {secret(number) for number in range(min(3 * KILLS, COUNT // 2))}
    assert bytes_of(shots.root) >= gone

    def prune(number: int) -> None:
        for each in range(3 * number, min(3 * number + 3, COUNT // 2)):
            shots.prune(5 * each)

    killed += kill_often(shots.root, seconds / 4, prune)
    finish(shots.root)
    check_whole(shots.root)
    assert not bytes_of(shots.root) & gone
    words, _ = state(shots.root)
    assert words == {
        ino: [] if gone.intersection(texts) else texts for ino, texts in wanted[0].items()
    }
    print(f"{killed} of {2 * KILLS} readings were killed at work")


def bytes_of(root: Path) -> set[str]:
    """Which secrets are in the bytes of a store, without their beginning, which FTS5 may share."""
    data = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    return {secret(n) for n in range(COUNT) if secret(n)[4:].encode() in data}
