"""Videos and animations: the frames that went in come out, at their times."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsmount.errors import FsmountError
from fsmount.timelapse import writers
from fsmount.timelapse.writers import SUFFIXES, Frame, writer

COLOURS = [(200, 30, 40), (20, 180, 60), (40, 60, 220), (128, 128, 128)]
DURATIONS = [100, 1500, 40, 300]
VIDEOS = [suffix for suffix in SUFFIXES if suffix not in (".gif", ".webp")]
needs_av = pytest.mark.skipif(not find_spec("av"), reason="PyAV is not installed")


def frames() -> list[Frame]:
    made = []
    for colour in COLOURS:
        frame = np.full((64, 96, 3), colour, np.uint8)
        frame[20:40, 20:60] = 255 - np.array(colour, np.uint8)
        made.append(frame)
    return made


def write(path: Path) -> None:
    with writer(path, path.suffix, len(COLOURS)) as out:
        start = 0
        for frame, duration in zip(frames(), DURATIONS, strict=True):
            out.add(frame, start, duration)
            start += duration
        out.finish()


@needs_av
@pytest.mark.parametrize("suffix", VIDEOS)
def test_a_video(tmp_path: Path, suffix: str) -> None:
    import av

    write(tmp_path / f"x{suffix}")
    with av.open(str(tmp_path / f"x{suffix}")) as file:
        got = list(file.decode(video=0))
    starts = [round(1000 * float(frame.time or 0)) for frame in got]
    # The last one comes twice, so that players show it for its time.
    assert starts == [0, 100, 1600, 1640, 1940]
    for frame, wanted in zip(got, [*frames(), frames()[-1]], strict=True):
        shown = frame.reformat(format="rgb24").to_ndarray()
        assert np.abs(shown.astype(int) - wanted).mean() < 6
        assert (frame.width, frame.height, frame.colorspace) == (96, 64, 1)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"x{suffix}")
    with Image.open(tmp_path / f"x{suffix}") as found:
        assert getattr(found, "n_frames", 1) == len(COLOURS)
        for number, wanted in enumerate(frames()):
            found.seek(number)
            shown = np.asarray(found.convert("RGB"))
            assert np.abs(shown.astype(int) - wanted).mean() < 6
            assert found.info["duration"] == DURATIONS[number]
        assert found.info["loop"] == 0


@pytest.mark.parametrize("suffix", [".gif", ".webp", pytest.param(".mp4", marks=needs_av)])
def test_an_error_in_the_middle(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(KeyError), writer(tmp_path / "x", suffix, 9) as out:
        out.add(frames()[0], 0, 40)
        out.add(frames()[1], 40, 40)
        raise KeyError


@pytest.mark.parametrize("suffix", [".gif", ".webp", pytest.param(".mp4", marks=needs_av)])
def test_a_full_disk(suffix: str) -> None:
    source = np.random.default_rng(2)
    with pytest.raises(OSError, match="space"), writer(Path("/dev/full"), suffix, 60) as out:
        for number in range(60):
            out.add(source.integers(0, 256, (200, 300, 3), np.uint8), 40 * number, 40)
        out.finish()


def test_a_gif_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_MOST_GIF_BYTES", 1000)
    with (
        pytest.raises(FsmountError, match="too many for a GIF"),
        writer(tmp_path / "x", ".gif", 4) as out,
    ):
        out.add(frames()[0], 0, 40)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules: Any = sys.modules
    monkeypatch.setitem(modules, "av", None)
    with pytest.raises(FsmountError, match=r"fsmount\[album\]"):
        writer(tmp_path / "x.mp4", ".mp4", 1)
    write(tmp_path / "x.webp")
