"""How much of the screen was new, for all pictures: read once, and kept."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from fsmount.store.frames.novelty import Novelty
from fsmount.store.store import open_read_store
from fsmount.web import shares
from fsmount.web.shares import Numbers, Shares
from tests.support.frames import png, screens
from tests.support.trees import import_into, make_store

COUNT = 7


@pytest.fixture(name="root")
async def a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_store(tmp_path / "store", monkeypatch)
    source = tmp_path / "desk"
    source.mkdir()
    for number, frame in enumerate(screens(COUNT)):
        (source / f"2026-03-14T09:{number:02}:05.png").write_bytes(png(frame))
    await import_into(root, str(source))
    return root


async def of_all(root: Path, caches: Path) -> tuple[Numbers, list[float], int]:
    """Fill the shares of a store. Returns its objects, their shares, and how many were missing."""
    with open_read_store(root) as opened:
        async with opened.running(count=1) as store:
            found = sorted(each.id for each in store.index.all_objects())
            objects = np.array(found, np.uint32)
            known = Shares(store, caches)
            missing = known.missing(objects)
            assert missing == sorted(missing, reverse=True)
            assert np.isnan(known.of(objects)).sum() == len(missing)
            await known.fill(missing)
            assert known.missing(objects) == []
            return objects, known.of(objects).tolist(), len(missing)


def file_of(caches: Path) -> Path:
    (path,) = (caches / "shares").iterdir()
    return path


async def test_they_are_read_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several portions.
    monkeypatch.setattr(shares, "FEW", 3)
    caches = tmp_path / "caches"
    objects, found, missing = await of_all(root, caches)
    assert missing == len(objects) >= COUNT
    with open_read_store(root) as store:
        novelty = Novelty(store.layout, store.index)
        wanted = [novelty.share(store.index.object(number)) for number in objects.tolist()]
    assert found == pytest.approx(wanted, abs=1 / 500)
    assert 0 < min(found) < 1
    assert stat.S_IMODE(file_of(caches).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(caches).parent.stat().st_mode) == 0o700
    _, again, missing = await of_all(root, caches)
    assert (again, missing) == (found, 0)


@pytest.mark.parametrize("data", [b"", b"something else", b"fsmount shares 1\n", None])
async def test_a_file_that_does_not_fit(root: Path, tmp_path: Path, data: bytes | None) -> None:
    caches = tmp_path / "caches"
    objects, found, _ = await of_all(root, caches)
    path = file_of(caches)
    if data is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(data)
    _, again, missing = await of_all(root, caches)
    assert (again, missing) == (found, len(objects))


async def test_what_cannot_be_read_counts_as_new_and_is_tried_again(
    root: Path, tmp_path: Path
) -> None:
    strange = np.array([9999, (1 << 32) - 1], np.uint32)
    for _ in range(2):
        with open_read_store(root) as opened:
            async with opened.running(count=1) as store:
                known = Shares(store, tmp_path / "caches")
                assert known.missing(strange) == [9999]
                await known.fill(known.missing(strange))
                assert known.of(strange).tolist() == [1.0, 1.0]


async def test_a_folder_that_takes_no_file(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "caches").write_bytes(b"")
    await of_all(root, tmp_path / "caches")
    assert "cannot be kept" in caplog.text
