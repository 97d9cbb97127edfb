"""`fsmount video`: what it writes, prints and refuses."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from fsmount.store.store import open_read_store
from tests.cli.commands import Cli
from tests.support.packs import drop_parity, flip
from tests.support.trees import make_pictures


@pytest.fixture(name="shots")
def dated_pictures(tmp_path: Path) -> Path:
    """Twelve pictures, one a minute."""
    for number, path in enumerate(make_pictures(tmp_path / "shots", 12)):
        path.rename(path.with_name(f"2024-06-06T10:{number:02d}:00+00:00.png"))
    return tmp_path / "shots"


def frames(path: Path) -> int:
    with Image.open(path) as found:
        return getattr(found, "n_frames", 1)


def test_an_animation(cli: Cli, root: Path, shots: Path, tmp_path: Path) -> None:
    cli("import", shots, root)
    out = tmp_path / "day.webp"
    done = cli("video", root, "-o", out, "--speed", "60x", "--json").json()
    assert (done["frames"], done["pictures"], done["seconds"]) == (12, 12, 12.0)
    assert done["problems"] == []
    assert done["bytes"] == out.stat().st_size
    assert frames(out) == 12
    assert not list(tmp_path.glob(".*part"))
    assert cli("video", root, "-o", out).code == 2
    words = cli("video", root, "-o", out, "--force", "--clock", "--height", "64", "--fps", "1")
    assert words.out.startswith(f"{out}: 2 seconds, ")
    assert words.out.endswith("; 2 of 12 pictures\n")
    with Image.open(out) as found:
        assert found.size == (96, 64)


@pytest.mark.skipif(not find_spec("av"), reason="PyAV is not installed")
def test_a_video_of_a_part(cli: Cli, root: Path, shots: Path, tmp_path: Path) -> None:
    cli("import", shots, root)
    out = tmp_path / "day.mp4"
    since, until = "2024-06-06T10:03:00+00:00", "2024-06-06T10:05:00+00:00"
    chosen = ["--since", since, "--until", until, "--json"]
    done = cli("video", root, "shots", "-o", out, "--speed", "60", *chosen).json()
    assert (done["frames"], done["seconds"]) == (3, 3.0)
    assert out.read_bytes()[4:8] == b"ftyp"


def test_idle_pictures(cli: Cli, root: Path, shots: Path, tmp_path: Path) -> None:
    twin = sorted(shots.iterdir())[0].read_bytes()
    (shots / "2024-06-06T10:30:00+00:00.png").write_bytes(twin)
    cli("import", shots, root)
    done = cli("video", root, "-o", tmp_path / "x.gif", "--skip-idle", "--json").json()
    assert done["idle"] >= 1
    assert done["frames"] <= 12


def test_a_damaged_picture_is_left_out(cli: Cli, root: Path, shots: Path, tmp_path: Path) -> None:
    cli("import", shots, root)
    drop_parity(root)
    with open_read_store(root) as store:
        found = list(store.index.all_objects())[-1]
        flip(store.layout.pack(found.pack), found.offset + found.length // 2)
    (shots / "broken.png").write_bytes(b"no picture")
    os.utime(shots / "broken.png", (1_717_669_800, 1_717_669_800))
    cli("import", shots / "broken.png", root)
    done = cli("video", root, "-o", tmp_path / "x.webp")
    assert done.code == 3
    assert done.err.startswith("2 left out:\n  shots/2024-06-06T10:11:00+00:00.png: ")
    assert "  broken.png: it cannot be decoded" in done.err
    assert (tmp_path / "x.webp").exists()


def test_refusals(cli: Cli, root: Path, shots: Path, tmp_path: Path) -> None:
    cli("import", shots, root)
    for wrong in (
        ["-o", tmp_path / "x.avi"],
        ["-o", root / "x.webp"],
        ["-o", tmp_path / "x.webp", "--speed", "0"],
        ["-o", tmp_path / "x.webp", "--speed", "fast"],
        [],
    ):
        assert cli("video", root, *wrong).code == 2
    nothing = cli("video", root, "-o", tmp_path / "x.webp", "--until", "2000-01")
    assert (nothing.code, "no picture" in nothing.sentence()) == (1, True)
    assert cli("video", root, "none", "-o", tmp_path / "x.webp").code == 1
    assert cli("video", root, "-o", tmp_path / "no" / "x.webp").code == 1
    assert cli("video", shots, "-o", tmp_path / "x.webp").code == 10
    assert not (tmp_path / "x.webp").exists()
