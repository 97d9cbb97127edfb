"""A folder of the blog's method, made of real screenshots, mounted and imported."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import corpus
from tests.e2e.mounts import missing
from tests.e2e.test_cli import fsmount, mountpoint, well  # noqa: F401
from tests.legacies import convert, samples

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(name="originals")
def _originals(tmp_path: Path) -> Path:
    """Consecutive screenshots; 16 of them unless FSMOUNT_CORPUS_FULL says all."""
    folder = tmp_path / "originals"
    folder.mkdir()
    found = corpus.files("desk")
    wanted = found if os.environ.get("FSMOUNT_CORPUS_FULL") else found[40:56]
    for path in wanted:
        shutil.copy2(path, folder)
    return folder


@pytest.fixture(name="legacy")
def _legacy(originals: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "legacy"
    shutil.copytree(originals, folder)
    assert len(convert(folder)) > 8
    return folder


def behind(legacy: Path, hurt: list[str]) -> list[str]:
    """The stems of all pictures that hang on one of these."""
    lost: list[str] = []
    cut = False
    for path in sorted(legacy.iterdir()):
        cut = path.suffix == ".jxl" and (cut or path.stem in hurt)
        if cut:
            lost.append(path.stem)
    return lost


def damage(legacy: Path, count: int) -> list[str]:
    """Hurt differences in several ways; the stems of what cannot come back."""
    links = sorted(legacy.glob("*.jxl"))
    hurt = links[2 :: max(1, len(links) // count)][:count]
    for way, path in enumerate(hurt):
        data = bytearray(path.read_bytes())
        if way % 3 == 0:
            data[len(data) // 2] ^= 16
        elif way % 3 == 1:
            del data[len(data) // 2 :]
        else:
            data[:] = bytes(len(data))
        path.write_bytes(data)
    return behind(legacy, [path.stem for path in hurt])


def test_all_pictures_show_and_nothing_is_written(
    originals: Path, legacy: Path, place: Path
) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in legacy.iterdir())
    well("mount", legacy, place, "-o", "ro")
    assert sorted(os.listdir(place)) == sorted(os.listdir(originals))
    for path in originals.iterdir():
        shown = place / path.name
        assert np.array_equal(samples(shown), samples(path))
        assert shown.stat().st_size == len(shown.read_bytes())
    well("umount", place)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in legacy.iterdir()) == before


def test_damage_costs_what_hangs_on_it(originals: Path, legacy: Path, place: Path) -> None:
    lost = damage(legacy, 5)
    assert lost
    well("mount", legacy, place, "-o", "ro")
    gone = []
    for path in sorted(originals.iterdir()):
        try:
            with Image.open(place / path.name) as image:
                shown = np.array(image)
        except OSError:
            gone.append(path.stem)
        else:
            assert np.array_equal(shown, samples(path))
    assert gone == lost
    well("umount", place)


def test_import_verify_and_the_way_back(originals: Path, legacy: Path, tmp_path: Path) -> None:
    store, out, back = tmp_path / "store", tmp_path / "out", tmp_path / "back"
    well("init", store)
    well("import", f"{legacy}/", store)
    well("verify", f"{legacy}/", store)
    well("export", store, out)
    assert sorted(os.listdir(out)) == sorted(os.listdir(originals))
    for path in originals.iterdir():
        assert np.array_equal(samples(out / path.name), samples(path))
        assert (out / path.name).stat().st_mtime_ns == path.stat().st_mtime_ns
    # The blog's form again, and whole pictures from it once more.
    well("export", "--legacy", store, back)
    assert sorted(os.listdir(back)) == sorted(os.listdir(legacy))
    well("verify", f"{back}/", store)
    assert "not empty" in fsmount("export", "--legacy", store, back).stderr


def test_damage_is_named_by_an_import(originals: Path, legacy: Path, tmp_path: Path) -> None:
    lost = damage(legacy, 5)
    store, out = tmp_path / "store", tmp_path / "out"
    well("init", store)
    done = fsmount("import", f"{legacy}/", store, "--json")
    assert done.returncode == 3
    named = sorted(Path(path).stem for path, _ in json.loads(done.stdout)["problems"])
    assert named == lost
    well("export", store, out)
    all_stems = {path.stem for path in originals.iterdir()}
    assert {path.stem for path in out.iterdir()} == all_stems - set(lost)
