"""Looks get the parameters that earlier looks have found."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.store.frames import jobs
from fsmount.store.ingest.inputs import Inputs
from fsmount.store.ingest.look import Looker
from fsmount.store.store import open_store
from tests.support.encoding import Inline
from tests.support.frames import png, screens


class Noting(Inline):
    """Workers that note the hints of each look, and fail the first `failing` looks."""

    hints: list[tuple[DeflateParams, ...]]
    failing = 0

    async def run(self, function: object, *args: object, **how: object) -> object:
        if function is jobs.look:
            self.hints.append(args[1])  # type: ignore[arg-type]
            if len(self.hints) <= self.failing:
                raise OSError("told to fail")
        return await super().run(function, *args, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("failing", [0, 1])
async def test_the_first_look_finds_the_parameters_for_the_others(
    root: Path, tmp_path: Path, failing: int
) -> None:
    """All begin at once. A first look that fails keeps nobody waiting."""
    paths = []
    for number, frame in enumerate(screens(5)):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(png(frame))
    workers = Noting(1)
    workers.hints = []
    workers.failing = failing
    failed = 0
    with open_store(root) as opened:
        looker = Looker(Inputs(opened.index, opened.staging), workers, 0)  # type: ignore[arg-type]

        async def look(number: int) -> None:
            nonlocal failed
            try:
                seen = await looker.look(-1, paths[number], number)
            except OSError:
                failed += 1
            else:
                assert seen.picture is not None

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(look, number)
    assert failed == failing
    assert workers.hints[0] == ()
    if not failing:
        assert all(len(hints) == 1 for hints in workers.hints[1:])


@pytest.mark.parametrize("is_looked_at", [True, False])
async def test_the_first_file_goes_first(root: Path, tmp_path: Path, is_looked_at: bool) -> None:
    """All plans wait for it. If it needs no look, the others begin."""
    path = tmp_path / "0.png"
    path.write_bytes(png(next(iter(screens(1)))))
    workers = Noting(1)
    workers.hints = []
    done: list[int] = []
    with open_store(root) as opened:
        looker = Looker(Inputs(opened.index, opened.staging), workers, 0)  # type: ignore[arg-type]

        async def look(number: int) -> None:
            await looker.look(-1, path, number)
            done.append(number)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in (3, 2, 1):
                    nursery.start_soon(look, number)
                await wait_all_tasks_blocked()
                assert not workers.hints
                if is_looked_at:
                    nursery.start_soon(look, 0)
                else:
                    looker.passed(0)
    assert sorted(done) == ([0, 1, 2, 3] if is_looked_at else [1, 2, 3])
    assert done[0] == 0 or not is_looked_at
