"""Making a time lapse: few frames at a time, and no file unless it is whole."""

from __future__ import annotations

import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

from fsmount.errors import FsmountError
from fsmount.store.store import open_read_store, open_store
from fsmount.timelapse.canvas import Canvas
from fsmount.timelapse.making import Made, make
from fsmount.timelapse.plan import plan
from fsmount.timelapse.writers import Frame
from tests.support.repacking import fill, pictures

COUNT = 40
SUFFIXES = [
    ".webp",
    pytest.param(".mp4", marks=pytest.mark.skipif(not find_spec("av"), reason="no PyAV")),
]


@pytest.fixture(name="root")
def filled(root: Path, inline: None) -> Path:
    trio.run(fill, root, pictures(COUNT))
    with open_store(root) as store:
        for number, (_, inode) in enumerate(list(store.index.walk())):
            store.index.update(inode.ino, mtime_ns=number * 10**9)
    return root


def made(root: Path, path: Path, canvas: Canvas) -> Made:
    async def work() -> Made:
        with open_read_store(root) as opened:
            async with opened.running(count=1) as store:
                shots = plan(store, store.index.walk(), speed=1, most_per_second=30)
                assert shots.found == COUNT
                return await make(store, shots, path, canvas, lambda files, count: None)

    return trio.run(work)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_few_frames_are_alive(
    root: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[weakref.ref[Any]] = []
    alive: list[int] = []
    draw = Canvas.frame

    def frame(self: Canvas, data: bytes | bytearray, wall_us: int) -> Frame:
        drawn = draw(self, data, wall_us)
        frames.append(weakref.ref(drawn))
        alive.append(sum(each() is not None for each in frames))
        return drawn

    monkeypatch.setattr(Canvas, "frame", frame)
    done = made(root, tmp_path / f"x{suffix}", Canvas(height=None, clock=True))
    assert done.frames == len(frames) == COUNT
    assert max(alive) <= 6


def test_no_file_unless_it_is_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.webp").write_bytes(b"the old one")

    def broken(*_: object) -> Frame:
        raise FsmountError("broken")

    monkeypatch.setattr(Canvas, "frame", broken)
    with pytest.raises(FsmountError, match="none of the chosen pictures"):
        made(root, tmp_path / "x.webp", Canvas(height=None, clock=False))

    def worse(*_: object) -> Frame:
        raise KeyError("worse")

    monkeypatch.setattr(Canvas, "frame", worse)
    with pytest.raises(BaseExceptionGroup):
        made(root, tmp_path / "x.webp", Canvas(height=None, clock=False))
    assert (tmp_path / "x.webp").read_bytes() == b"the old one"
    assert not list(tmp_path.glob(".*"))
