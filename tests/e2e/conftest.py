"""Shared fixtures for tests on a real mount."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mounts import Mount


@pytest.fixture(name="mount")
def started_mount(tmp_path: Path) -> Iterator[Mount]:
    """A new store, mounted."""
    made = Mount(tmp_path)
    made.start()
    yield made
    made.clean()
