"""A folder in the format of the blog, made of real screenshots: mounted and imported."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.mount.mountpoint import mounted_at
from tests.e2e.commands import fsmount, well
from tests.e2e.mounts import missing
from tests.support import corpus
from tests.support.legacies import BERLIN, convert, convert_all, desk, folder_of, samples

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(name="originals")
def _originals(tmp_path: Path) -> Path:
    """Consecutive screenshots: 16 of them, or all with FSMOUNT_CORPUS_FULL."""
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
    """The stems of all pictures that need one of the damaged differences."""
    lost: list[str] = []
    cut = False
    for path in sorted(legacy.iterdir()):
        cut = path.suffix == ".jxl" and (cut or path.stem in hurt)
        if cut:
            lost.append(path.stem)
    return lost


def damage(legacy: Path, count: int) -> list[str]:
    """Damage differences in several ways. Returns the stems of the pictures that are lost."""
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
    # Export to the blog's format, and compare its pictures with the store.
    well("export", "--legacy", store, back)
    assert sorted(os.listdir(back)) == sorted(os.listdir(legacy))
    well("verify", f"{back}/", store)
    assert "not empty" in fsmount("export", "--legacy", store, back).stderr


def test_names_without_colons(originals: Path, tmp_path: Path) -> None:
    """The order is that of the times, also where both kinds of names meet within an hour."""
    store, back = tmp_path / "store", tmp_path / "back"
    for path in sorted(originals.iterdir())[4:]:
        date, _, rest = path.name.partition("T")
        path.rename(path.with_name(f"{date}T{rest[:8].replace(':', '-')}+0000.png"))
    well("init", store)
    well("import", f"{originals}/", store)
    well("export", "--legacy", store, back)
    assert len(list(back.glob("*T??-??-??+0000.jxl"))) > 8
    well("verify", f"{back}/", store)
    well("verify", f"{originals}/", store)


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


ZONES = ("UTC", BERLIN, "PST8PDT,M3.2.0,M11.1.0")
TIMES = {
    "the hour that is skipped": [
        f"2024-03-{day}T0{m // 60}:{m % 60:02}:00" for day in (10, 31) for m in range(90, 190, 20)
    ],
    "the hour that comes twice": [
        f"2024-10-27T02:{m:02}:00+0{hours}:00" for hours in (2, 1) for m in range(0, 60, 12)
    ],
    "its digits alone": [f"2024-10-27T02:{m:02}:{s:02}.5" for m in range(5) for s in (7, 31)],
}


@pytest.mark.parametrize("stems", TIMES.values(), ids=TIMES.keys())
def test_the_time_zone_of_a_command_changes_no_pixel(
    stems: list[str], tmp_path: Path, place: Path
) -> None:
    """The folder is written in one zone. Other zones mount, import, verify and estimate it."""
    frames = folder_of(tmp_path / "originals", desk(len(stems)), stems)
    first, out = tmp_path / "first", tmp_path / "out"
    well("init", first)
    well("import", f"{tmp_path}/originals/", first)
    for number, zone in enumerate(ZONES):
        legacy, other = tmp_path / f"legacy{number}", ZONES[number - 1]
        well("export", "--legacy", first, legacy, TZ=zone)
        assert len(list(legacy.glob("*.jxl"))) == len(stems) - 1
        well("mount", legacy, place, "-o", "ro", TZ=other)
        shown = {path.stem: samples(path) for path in place.iterdir()}
        well("umount", place)
        assert sorted(shown) == sorted(frames)
        assert all(np.array_equal(shown[stem], frames[stem]) for stem in stems)
        assert json.loads(well("estimate", legacy, "--json", TZ=other))["problems"] == []
        well("verify", f"{legacy}/", first, TZ=other)
        store = tmp_path / f"store{number}"
        well("init", store)
        well("import", "--delete-source", f"{legacy}/", store, TZ=other)
        assert os.listdir(legacy) == []

        shutil.rmtree(out, ignore_errors=True)
        well("export", store, out, TZ=zone)
        assert all(np.array_equal(samples(out / f"{s}.png"), frames[s]) for s in stems)
    runs = [well("runs", tmp_path / f"store{n}", TZ=zone) for n, zone in enumerate(ZONES)]
    # Not the sizes: an import adds pictures in the order of time, and the encoder takes them in the
    # order of names, as far as they are there.
    assert len({re.sub(r" *\d+\.\d kB", "", run) for run in runs}) == 1


def test_a_mixed_folder_names_what_is_not_certain(tmp_path: Path, place: Path) -> None:
    stems = [f"2024-06-0{day}T10:00:00" for day in range(1, 6)]
    stems += [f"2024-06-0{day}T12:00:00+00:00" for day in range(5, 9)]
    frames = folder_of(tmp_path / "old", desk(9), stems)
    convert_all([tmp_path / "old" / f"{stem}.png" for stem in stems])
    well("mount", tmp_path / "old", place, "-o", "ro")
    with pytest.raises(OSError, match="Input/output error"):
        (place / f"{stems[4]}.png").read_bytes()
    assert np.array_equal(samples(place / f"{stems[3]}.png"), frames[stems[3]])
    well("umount", place)
    store = tmp_path / "store"
    well("init", store)
    before = sorted(os.listdir(tmp_path / "old"))
    done = fsmount("import", "--delete-source", f"{tmp_path}/old/", store)
    assert done.returncode == 3
    assert f"{stems[4]}.jxl and {stems[5]}.jxl are less than a day apart" in done.stderr
    assert sorted(os.listdir(tmp_path / "old")) == before


def test_it_is_not_hidden_by_its_own_mount(legacy: Path) -> None:
    """Such a mount would wait for itself, and nobody could end it."""
    done = fsmount("mount", "-o", "nonempty", legacy, legacy.parent)
    assert done.returncode == 12
    assert f"{legacy} lies in it, and would be hidden" in done.stderr
    assert mounted_at(legacy.parent) is None
