"""Fixtures of the tests of import, export and verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.legacy import archive
from tests.support.encoding import Inline
from tests.support.trees import make_store, make_tree


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new store, without worker processes for it."""
    return make_store(tmp_path / "store", monkeypatch)


@pytest.fixture(name="source")
def tree(tmp_path: Path) -> Path:
    """A folder with files of all kinds."""
    return make_tree(tmp_path / "in")


@pytest.fixture
def inline_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy folders without worker processes."""
    monkeypatch.setattr(archive, "Workers", Inline)
