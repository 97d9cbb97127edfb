"""Stores of each released format: they open, give every file back, take new ones, and repack.

`tests/data/stores` has one store of each format, as an fsmount of its time has written it, and the
SHA-256 of all its files. They are never written anew. That of format 2 has dictionaries, a picture
in two images, an interlaced PNG, an animated one, and parity.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.store import config
from tests.support.frames import png, screens
from tests.support.paths import CHECKOUT

STORES = CHECKOUT / "tests/data/stores"
FORMATS = sorted(path.name for path in STORES.iterdir() if path.is_dir())


def fsmount(*arguments: object) -> str:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of all files, without what SQLite puts beside an open database."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def wanted(store: Path) -> dict[str, str]:
    """The SHA-256 of the files in a store."""
    found: dict[str, str] = json.loads((STORES / f"{store.name}.json").read_text())
    return found


def format_of(store: Path) -> int:
    return int(json.loads((store / "fsmount.json").read_text())["format"])


@pytest.fixture(params=FORMATS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a store, without the folders that were empty."""
    return Path(shutil.copytree(STORES / request.param, tmp_path / request.param))


def test_reading_changes_nothing(store: Path, tmp_path: Path) -> None:
    before = sums(store)
    fsmount("export", store, tmp_path / "out")
    assert sums(tmp_path / "out") == wanted(store)
    assert sums(store) == before
    fsmount("check", "--full", store)


def test_writing_brings_the_newest_format(store: Path, tmp_path: Path) -> None:
    (tmp_path / "new.png").write_bytes(png(screens(21, height=96, width=160)[20]))
    fsmount("import", tmp_path / "new.png", store)
    assert format_of(store) == config.FORMAT
    fsmount("repack", store)
    fsmount("check", "--full", store)
    fsmount("export", store, tmp_path / "out")
    assert sums(tmp_path / "out") == {**wanted(store), "new.png": sums(tmp_path)["new.png"]}
    # Its config has all that it had.
    was = json.loads((STORES / store.name / "fsmount.json").read_text())
    now = json.loads((store / "fsmount.json").read_text())
    assert was.items() <= {**now, "format": was["format"]}.items()


def test_an_index_is_made_anew(store: Path, tmp_path: Path) -> None:
    (store / "index.sqlite").unlink()
    repaired = subprocess.run(
        [sys.executable, "-m", "fsmount", "check", "--repair", str(store)],
        check=False,
        capture_output=True,
    )
    assert repaired.returncode == 21
    fsmount("export", store, tmp_path / "out")
    assert sums(tmp_path / "out") == wanted(store)


@pytest.mark.parametrize("inside", ["", "packs"])
def test_the_script_reads_it(store: Path, tmp_path: Path, inside: str) -> None:
    script, out = str(CHECKOUT / "contrib/unpack.py"), tmp_path / "out"
    subprocess.run([sys.executable, script, str(store / inside), str(out)], check=True)
    assert sums(out) == wanted(store)
