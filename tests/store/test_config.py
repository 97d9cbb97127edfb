"""The folder of a store, its format, and its lock."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from fsmount.errors import FormatUnsupported, NoStore, StoreExists
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.layout import Layout
from tests.support.frames import FlakyDisk


def test_a_new_store_is_whole_and_private(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    config.make(root, Disk())
    found = config.read(root)
    assert found["format"] == config.FORMAT
    assert len(found["uuid"]) == 36
    layout = Layout(root)
    for folder in (layout.packs, layout.staging, layout.raw, root):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(layout.index.stat().st_mode) == 0o600
    index = Index(layout.index, Disk())
    assert index.inode(ROOT).uid == os.getuid()
    index.close()


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    config.make(tmp_path, Disk())
    assert config.read(tmp_path)
    with pytest.raises(StoreExists):
        config.make(tmp_path, Disk())


def test_other_folders_and_files_are_let_alone(tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(b"mine")
    with pytest.raises(StoreExists):
        config.make(tmp_path, Disk())
    with pytest.raises(StoreExists):
        config.make(tmp_path / "note", Disk())
    assert os.listdir(tmp_path) == ["note"]


def test_a_store_that_was_not_finished_is_none(tmp_path: Path) -> None:
    disk = FlakyDisk()
    disk.fail_once("pwrite")
    with pytest.raises(OSError):
        config.make(tmp_path / "s", disk)
    with pytest.raises(NoStore):
        config.read(tmp_path / "s")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":"x"}', '{"format":null}', "\xff", "7"])
def test_what_is_no_config_is_no_store(tmp_path: Path, text: str) -> None:
    (tmp_path / "fsmount.json").write_text(text)
    with pytest.raises(NoStore):
        config.read(tmp_path)
    with pytest.raises(NoStore):
        config.read(tmp_path / "none")


def test_a_disk_with_errors_is_not_taken_for_a_folder_without_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.make(tmp_path / "s", Disk())

    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EIO):
        config.read(tmp_path / "s")


def test_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "fsmount.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(FormatUnsupported, match="99"):
        config.read(tmp_path)


def test_paths() -> None:
    layout = Layout(Path("/s"))
    assert layout.pack(12) == Path("/s/packs/00000012.zip")
    assert layout.kept(255) == Path("/s/raw/000000ff")
