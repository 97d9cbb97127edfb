"""The database of words: a process is killed while it makes one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.store.layout import Layout
from fsmount.text.database import TextDatabase, change_text, make_text, open_text, path_of
from tests.crash.limits import patch

_KILLED, _MADE = 9, 0


def _killed_at(number: int) -> Iterator[None]:
    """End the process before the statement `number`, counted from 0."""
    for _ in range(number):
        yield
    os._exit(_KILLED)


def _make(layout: Layout, number: int) -> int:
    """Make a database in a process that ends before a statement. Returns how it ended."""
    child = os.fork()
    if not child:
        steps = _killed_at(number)
        run, create = TextDatabase._run, TextDatabase.create

        def killed_run(self: TextDatabase, sql: str, *values: object) -> None:
            next(steps)
            run(self, sql, *values)

        def killed_create(self: TextDatabase, identity: str) -> None:
            next(steps)
            create(self, identity)

        patch(TextDatabase, "_run", killed_run)
        patch(TextDatabase, "create", killed_create)
        make_text(layout, "store")
        os._exit(_MADE)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path: Path) -> None:
    sizes = set()
    for number in range(100):
        layout = Layout(tmp_path / str(number))
        layout.root.mkdir()
        ended = _make(layout, number)
        if ended == _MADE:
            break
        assert ended == _KILLED
        sizes.add(path_of(layout).stat().st_size)
        assert open_text(layout, "store") is None
        assert change_text(layout, "store") is None
        with make_text(layout, "store") as made:
            assert made.fact("format") is not None
        found = open_text(layout, "store")
        assert found is not None
        found.close()
    else:
        pytest.fail("the making never ended")
    # An empty file, and one that has no tables.
    assert len(sizes) > 1
    assert number > 10
