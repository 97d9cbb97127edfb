"""A store whose making was killed is made again. Files of others at its place stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.adopt.adopt import _remove_unfinished
from fsmount.adopt.state import AdoptedFolder
from fsmount.errors import NotAdoptable
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import CONFIG


@pytest.fixture(name="subject")
def begun(tmp_path: Path) -> AdoptedFolder:
    """An adoption that was killed just before its store was complete."""
    store = tmp_path / "shots.store"
    config.make(store, Disk())
    (store / CONFIG).rename(store / f"{CONFIG}.new")
    return AdoptedFolder(tmp_path / "shots", store, 0, 0)


def test_it_is_removed(subject: AdoptedFolder) -> None:
    _remove_unfinished(subject)
    assert not subject.store.exists()
    _remove_unfinished(subject)


@pytest.mark.parametrize("name", ["notes.txt", "packs/00000001.zip", "staging/1", "raw/1"])
def test_files_at_its_place_stay(subject: AdoptedFolder, name: str) -> None:
    (subject.store / name).write_bytes(b"kept")
    with pytest.raises(NotAdoptable, match="was not finished, but has files; move it away"):
        _remove_unfinished(subject)
    assert (subject.store / name).read_bytes() == b"kept"
    assert (subject.store / "index.sqlite").exists()
