"""The benchmarks that mount a store run to their end, with few small pictures."""

from __future__ import annotations

import re

import pytest

from tests.bench import archive, screens
from tests.bench.wallpapers import made_up
from tests.e2e.mounts import missing

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


def test_screens(capsys: pytest.CaptureFixture[str]) -> None:
    screens.measure("320x200", 4, 2, made_up()[:1])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("320x200, 4 pictures")
    assert [row.split()[0] for row in rows] == ["blog", "fsmount", "ratio"]
    numbers = [float(each.replace(",", "")) for each in re.findall(r"[\d,.]+", " ".join(rows))]
    assert len(numbers) == 9 + 9 + 5
    assert min(numbers) > 0


def test_archive(capsys: pytest.CaptureFixture[str]) -> None:
    found = archive.measure(40, 16, made_up()[:1], ((320, 200), (200, 120)))
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert found["files"] == 40
    assert all(value for name, value in found.items() if name != "load")
