"""The benchmarks themselves: they find a method that loses a byte, and they measure costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.blog import Blog
from tests.bench.chart import scatter
from tests.bench.measure import quantiles, size_of, spend
from tests.bench.methods import Method, Opener, Wrong, run
from tests.bench.single import Jpeg, Recompressed
from tests.bench.stills import JpegXl
from tests.support.frames import png, screens


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{number}.png" for number in range(4)]
    for path, frame in zip(made, screens(len(made)), strict=True):
        path.write_bytes(png(frame))
    return made


class Copies:
    """A method that keeps the files as they are. It returns `lie` for each picture, if given."""

    name = "copies"
    gives = "files"

    def __init__(self, lie: bytes | None = None) -> None:
        self.lie = lie

    def missing(self) -> str | None:
        return None

    def store(self, files: Sequence[Path], folder: Path) -> None:
        for path in files:
            (folder / path.name).write_bytes(path.read_bytes())

    def size(self, folder: Path) -> int:
        return size_of(folder)

    def read_all(self, folder: Path, out: Path) -> None:
        self.store(sorted(folder.iterdir()), out)

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        yield lambda number: self.lie or sorted(folder.iterdir())[number].read_bytes()


@pytest.mark.parametrize("method", [Copies(), Blog(), JpegXl(1), Recompressed(), Jpeg(85)])
def test_a_method_comes_to_a_row(method: Method, files: list[Path], tmp_path: Path) -> None:
    row = run(method, files, tmp_path / "scratch", 3)
    assert row.bytes > 1000
    assert row.in_rate > 0 < row.out_rate
    assert row.in_peak_bytes > 1 << 20
    assert len(row.open_ms) == 4
    assert not (tmp_path / "scratch").exists()


def test_a_lie_is_found_out(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Wrong, match="not what was given"):
        run(Copies(b"no picture"), files, tmp_path / "scratch", 1)


def test_costs_are_those_of_the_action() -> None:
    cost = spend(_busy)
    assert 0.5 < cost.cpu_s < 5
    assert cost.peak_bytes > 50 << 20


def _busy() -> None:
    held = bytearray(b"x") * (50 << 20)
    # It runs long enough to have its memory sampled while other processes keep the processors busy.
    end = time.process_time() + 0.6
    while time.process_time() < end:
        held[0] ^= 1


def test_quantiles() -> None:
    assert quantiles(range(100)) == (50, 90, 99, 99)


def test_a_chart_shows_each_row_that_has_opens(files: list[Path], tmp_path: Path) -> None:
    rows = [run(Copies(), files, tmp_path / "a", 3), run(Jpeg(85), files, tmp_path / "b", 3)]
    rows.append(replace(rows[0], name="<never opened>", open_ms=()))
    rows.append(replace(rows[0], name="a & b", bytes=7 * rows[0].bytes))
    root = ElementTree.fromstring(scatter("Some & others", rows, len(files)))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"copies", "JPEG, quality 85", "a & b", "Some & others"} <= set(texts)
    assert "<never opened>" not in texts
    places = {
        each.text: float(each.get("x", "0"))
        for each in root.iter("{http://www.w3.org/2000/svg}text")
    }
    assert places["copies"] < places["a & b"]
