from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmount.codec.png import png
from fsmount.errors import NotExact
from fsmount.work.shared_frames import SharedPicture, share
from fsmount.work.workers import Workers
from tests.support import frames, worker_jobs


def picture(tmp_path: Path, number: int = 0) -> tuple[SharedPicture, png.Picture]:
    """A picture that this process shares."""
    data = frames.png(frames.screens(number + 1)[number])
    path = tmp_path / f"{number}.png"
    path.write_bytes(data)
    found = png.parse(data)
    return share(str(path), hashlib.sha256(data).digest(), found), found


def same(one: png.Picture, other: png.Picture) -> bool:
    return one.recipe == other.recipe and np.array_equal(one.frame, other.frame)


def test_mapped_without_the_file(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    Path(here.path).unlink()
    got = here.get()
    assert same(got, found)
    assert not got.frame.flags.writeable
    assert np.array_equal(here.frame, found.frame)


async def test_another_process_gets_it_without_the_file(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    Path(here.path).unlink()
    async with Workers(1) as workers:
        assert same(await workers.run(worker_jobs.get_shared, here), found)
        with pytest.raises(FileNotFoundError):
            await workers.run(worker_jobs.get_shared, replace(here, samples=None))


async def test_decoded_again_where_the_memory_is_gone(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    assert same(replace(here, samples=None).get(), found)
    assert here.samples is not None
    here.samples.size += 1
    assert same(here.get(), found)
    Path(here.path).write_bytes(b"something else")
    with pytest.raises(NotExact, match="changed"):
        here.get()


def test_samples_of_another_file_are_not_taken(tmp_path: Path) -> None:
    one, found = picture(tmp_path, 0)
    two, _ = picture(tmp_path, 1)
    assert one.shape == two.shape
    assert same(replace(one, samples=two.samples).get(), found)


def test_what_crossed_and_is_something_else_now_is_refused(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    height, width, channels = here.shape
    wrong = [
        replace(here, recipe=replace(found.recipe, tail=b"")),
        replace(here, shape=(width, height, channels)),
        replace(here, dtype="int8"),
        replace(here, sha256=bytes(32)),
    ]
    for other in wrong:
        with pytest.raises(NotExact, match="changed"):
            other.get()


def test_a_system_without_such_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    here, found = picture(tmp_path)
    assert here.samples is None
    assert same(here.get(), found)
