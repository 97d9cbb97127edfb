from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmount.codec.memory import of_worker
from fsmount.codec.png import png
from fsmount.errors import NotExact
from fsmount.work import shared_frames
from fsmount.work.shared_frames import SharedPicture, share
from fsmount.work.workers import Workers
from tests.support import frames, worker_jobs
from tests.support.encoding import forget_caches


def picture(tmp_path: Path, number: int = 0) -> tuple[SharedPicture, png.Picture]:
    """A picture that this process holds."""
    data = frames.png(frames.screens(number + 1)[number])
    path = tmp_path / f"{number}.png"
    path.write_bytes(data)
    found = png.parse(data)
    return share(str(path), hashlib.sha256(data).digest(), found, of_worker()), found


@pytest.fixture(autouse=True)
def nothing_held() -> None:
    forget_caches()


def same(one: png.Picture, other: png.Picture) -> bool:
    return one.recipe == other.recipe and np.array_equal(one.frame, other.frame)


def test_at_hand_in_the_process_that_holds_it(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    Path(here.path).unlink()
    assert here.get(of_worker()) is found


def test_mapped_elsewhere(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    Path(here.path).unlink()
    elsewhere = replace(here, sha256=here.sha256)
    mapped = elsewhere._map()
    assert mapped is not None
    assert same(png.Picture(mapped, here.recipe), found)
    assert not mapped.flags.writeable
    with pytest.raises(OSError, match="not permitted"):
        os.write(here.fd, b"x")


async def test_another_process_gets_it_without_the_file(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    Path(here.path).unlink()
    async with Workers(1) as workers:
        assert same(await workers.run(worker_jobs.get_shared, here), found)
        of_worker().held.clear()
        with pytest.raises(FileNotFoundError):
            await workers.run(worker_jobs.get_shared, here)


async def test_taken_apart_again_where_it_is_gone(tmp_path: Path) -> None:
    here, found = picture(tmp_path)
    of_worker().held.clear()
    assert same(here.get(), found)
    assert same(replace(here, fd=-1).get(), found)
    Path(here.path).write_bytes(b"something else")
    with pytest.raises(NotExact, match="changed"):
        here.get()


def test_a_number_used_again_is_not_mistaken(tmp_path: Path) -> None:
    one, _ = picture(tmp_path, 0)
    two, other = picture(tmp_path, 1)
    assert same(replace(two, fd=one.fd).get(), other)
    assert replace(two, fd=one.fd)._map() is None


def test_memory_that_is_still_being_filled_is_not_taken(tmp_path: Path) -> None:
    """The memory of a second file of the same bytes has the descriptor number of the first."""
    here, found = picture(tmp_path)
    filling = os.memfd_create(shared_frames._name(here.sha256), os.MFD_ALLOW_SEALING)
    os.write(filling, bytes(found.frame.nbytes // 2))
    second = replace(here, fd=filling)
    of_worker().held.clear()
    try:
        assert second._map() is None
        assert same(second.get(), found)
    finally:
        os.close(filling)


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
    assert here.fd == -1
    assert here.get(of_worker()) is found


def test_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_frames, "_MAX_PICTURES", 2)
    kept = [picture(tmp_path, number)[0] for number in range(4)]
    assert [one.sha256 in of_worker().held for one in kept] == [False, False, True, True]
    assert kept[0]._map() is None
    monkeypatch.setattr(shared_frames, "_MAX_BYTES", 1)
    picture(tmp_path, 4)
    assert len(of_worker().held) == 1
