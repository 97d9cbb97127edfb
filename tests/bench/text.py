"""Reading text: how much of it is found, and for how much processor time.

Run it with ``python -m tests.bench.text [FOLDER]...``. Each folder of screenshots is compared with
an OCR of every whole picture by the same engine. Without one, a day is generated, whose text is
known (tests/bench/generated_day.py).

Of the words that the OCR of a whole picture finds, those of more than two letters count, with a
confidence above 60. A word is found if a word of the same letters is at the same place.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import trio
from PIL import Image

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_read_store
from fsmount.text.database import make_text, path_of, writing
from fsmount.text.exclusions import Exclusions
from fsmount.text.reading import Reading
from fsmount.text.results import Rectangle, Word
from fsmount.text.tesseract import Tesseract
from fsmount.text.words import open_words
from tests.bench.generated_day import Day
from tests.support.trees import import_into

_LEAST_LETTERS, _LEAST_CONFIDENCE = 3, 60.0
_NEAR = 4


class Score:
    """Counts of words."""

    def __init__(self) -> None:
        self.all = self.found = self.near = 0

    def add(self, wanted: Sequence[Word], words: Sequence[Word]) -> None:
        """Count which of some words are among others, and at how exact a place."""
        at: dict[str, list[Rectangle]] = {}
        for word in words:
            at.setdefault(word.text, []).append(word.place)
        for word in wanted:
            places = [each for each in at.get(word.text, ()) if each.overlap(word.place)]
            self.all += 1
            self.found += bool(places)
            self.near += any(_distance(each, word.place) <= _NEAR for each in places)

    def __str__(self) -> str:
        share = self.found / max(1, self.all)
        near = self.near / max(1, self.found)
        return f"{share:.4f} of {self.all}; {near:.4f} of them within {_NEAR} pixels"


def _distance(one: Rectangle, two: Rectangle) -> int:
    return max(
        abs(one.x - two.x),
        abs(one.y - two.y),
        abs(one.right - two.right),
        abs(one.bottom - two.bottom),
    )


def long(words: Sequence[Word]) -> list[Word]:
    """Return the words that count."""
    return [word for word in words if len(word.text) >= _LEAST_LETTERS]


def whole(engine: Tesseract, path: Path) -> list[tuple[Word, float]]:
    """Read a whole picture: words and confidences."""
    with Image.open(path) as picture:
        found = engine.read(np.asarray(picture.convert("RGB")))
    return [(Word(each.text, each.place), each.confidence) for each in found]


def started_cpu_s(paths: Sequence[Path]) -> float:
    """Return the CPU seconds of ``tesseract FILE`` for a picture, a process for each."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for path in paths:
        subprocess.run(
            ["tesseract", path, "stdout", "--psm", "11", "tsv"],
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            capture_output=True,
            check=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(paths)


def measure(folder: Path, truth: dict[str, list[Word]] | None, scratch: Path) -> None:
    """Print how the pictures of a folder are read."""
    root = scratch / "store"
    config.make(root, Disk())
    trio.run(import_into, root, folder)
    names = sorted(path.name for path in folder.iterdir())
    with (
        open_read_store(root) as store,
        writing(store.layout),
        make_text(store.layout, store.index.identity()) as database,
        closing(Tesseract(["eng"])) as engine,
    ):
        began = time.process_time()
        reading = Reading(store, database, Exclusions())
        count = reading.prepare()
        summary = reading.run(engine, lambda: True, lambda files, nbytes: None)
        own = (time.process_time() - began) / count
        read = engine.cpu_s() / count
    alone = started_cpu_s([folder / name for name in names[:: max(1, len(names) // 20)]])
    recall, precise, true_ours, true_whole = Score(), Score(), Score(), Score()
    text_bytes = 0
    with (
        open_read_store(root) as store,
        open_words(store) as words,
        closing(Tesseract(["eng"])) as engine,
    ):
        top = store.index.lookup(1, os.fsencode(folder.name))
        assert top is not None
        for name in names:
            found = store.index.lookup(top.ino, os.fsencode(name))
            assert found is not None
            ours = words.of_picture(found.ino)
            text_bytes += sum(len(word.text) + 1 for word in ours)
            others = whole(engine, folder / name)
            sure = [word for word, sure in others if sure > _LEAST_CONFIDENCE]
            recall.add(long(sure), ours)
            known = [word for word, _ in others] if truth is None else truth[name]
            precise.add(long(ours), known)
            if truth is not None:
                true_ours.add(long(truth[name]), ours)
                true_whole.add(long(truth[name]), sure)
        every = engine.cpu_s() / count
        size = path_of(store.layout).stat().st_size
    effort = summary.effort
    print(f"{folder.name}: {count} pictures, {effort.read} of them with something to read")
    print(f"  recall of the words of whole pictures: {recall}")
    against = "words of whole pictures of any confidence" if truth is None else "the known text"
    print(f"  precision against {against}: {precise}")
    if truth is not None:
        print(f"  recall of the known text: {true_ours}; by whole pictures: {true_whole}")
    print(
        f"  CPU a picture: {own + read:.3f} s ({read:.3f} tesseract, {own:.3f} Python);"
        f" whole pictures {every:.3f} s by one process, {alone:.3f} s by a process for each:"
        f" {(own + read) / every:.3f} and {(own + read) / alone:.3f}"
    )
    print(f"  database {size / 1000:.0f} kB; the text of all pictures {text_bytes / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--pictures", type=int, default=480, help="Pictures of the generated day.")
    chosen = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="fsmount-text-", dir="/var/tmp"))
    try:
        for number, folder in enumerate(chosen.folders):
            (scratch / str(number)).mkdir()
            measure(folder.resolve(), None, scratch / str(number))
        if not chosen.folders:
            truth = {}
            folder = scratch / "day"
            folder.mkdir()
            for shot in Day(chosen.pictures).shots():
                name = f"{shot.at:%Y-%m-%dT%H:%M:%S}.png"
                Image.fromarray(shot.picture).save(folder / name)
                truth[name] = shot.words
            measure(folder, truth, scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
