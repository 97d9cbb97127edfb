"""A small run of :mod:`tests.lossless`, and a check that the run reports a file that differs."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from fsmount.store.writable_store import WritableStore
from tests import lossless
from tests.support import picture_files, pngs
from tests.support.encoding import get


def test_a_sample_comes_back() -> None:
    found = lossless.batch(seed=1, number=0, count=300)
    assert found.wrong == []
    assert sum(found.became.values()) == 300
    kinds = {kind for _, kind in found.became}
    assert kinds == {"key", "delta", "raw"}
    assert {"with copies", "with moves", "with fills", "with residuals"} <= set(found.ways)
    assert not {"worker died", "internal error"} & set(found.reasons)
    assert " 0 differ" in lossless.report(found, 1.0)


def test_a_file_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:

    async def wrong(store: WritableStore, ino: int) -> bytes:
        return (await get(store, ino)) + b"!"

    monkeypatch.setattr(lossless, "get", wrong)
    found = lossless.batch(seed=1, number=0, count=3)
    assert len(found.wrong) == 3


def test_the_same_seed_gives_the_same_files() -> None:
    one, other = (list(picture_files.files(random.Random("x"), 50)) for _ in range(2))
    assert one == other
    assert len(one) == 50


def test_files_are_written_as_the_plain_way_does() -> None:
    source = random.Random(1)
    for _ in range(60):
        made = picture_files.plan(source, source.randint(1, 20), source.randint(1, 20))
        assert picture_files.write(made) == pngs.build(made)
    kinds = {kind for kind, _ in islice(picture_files.files(source, 400), 400)}
    assert kinds == set(picture_files.KINDS_OF_FILES)
