"""Staged files and their tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsmount.store.disk import Disk
from fsmount.store.staging import Staging, new_writer, writer_of
from tests.frames import FlakyDisk


def test_a_staged_file_is_written_read_and_removed(tmp_path: Path) -> None:
    staging = Staging(tmp_path, Disk())
    token = staging.create()
    fd = staging.open(token)
    os.write(fd, b"abc")
    os.close(fd)
    assert staging.size(token) == 3
    assert staging.path(token).read_bytes() == b"abc"
    assert staging.tokens() == [token]
    staging.remove(token)
    assert staging.tokens() == []
    staging.remove(token)
    with pytest.raises(FileNotFoundError):
        staging.open(token)


def test_tokens_are_never_used_twice(tmp_path: Path) -> None:
    staging = Staging(tmp_path, Disk())
    seen = set()
    for _ in range(5):
        token = staging.create()
        assert token not in seen
        seen.add(token)
        staging.remove(token)
    kept = staging.create()
    again = Staging(tmp_path, Disk())
    assert again.create() > kept


def test_known_tokens_are_not_handed_out(tmp_path: Path) -> None:
    staging = Staging(tmp_path, Disk())
    staging.begin(0, {41, 7, 3 << 32})
    assert staging.create() == 42
    staging.begin(3, {41, 7, 3 << 32, (5 << 32) + 9})
    assert staging.create() == (3 << 32) + 1
    staging.begin(5, {41})
    assert staging.create() == (5 << 32) + 1


def test_tokens_say_who_made_them(tmp_path: Path) -> None:
    staging = Staging(tmp_path, Disk())
    writers = {new_writer() for _ in range(50)}
    assert len(writers) == 50
    for writer in writers:
        staging.begin(writer)
        token = staging.create()
        assert writer_of(token) == writer
        # What an index can hold.
        assert 0 < token < 1 << 63
    assert writer_of(17) == 0


def test_other_names_are_let_alone(tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(b"")
    (tmp_path / "9").write_bytes(b"")
    staging = Staging(tmp_path, Disk())
    assert staging.tokens() == [9]
    assert staging.create() == 10


def test_a_missing_folder_has_no_tokens(tmp_path: Path) -> None:
    assert Staging(tmp_path / "none", Disk()).tokens() == []


def test_a_token_that_could_not_be_created_is_free(tmp_path: Path) -> None:
    disk = FlakyDisk()
    staging = Staging(tmp_path, disk)
    disk.fail_once("create")
    with pytest.raises(OSError):
        staging.create()
    assert staging.create() == 1


def test_the_folder_is_forced_through_the_disk(tmp_path: Path) -> None:
    disk = FlakyDisk()
    Staging(tmp_path, disk).fsync_folder()
    assert [call for call, _ in disk.calls] == ["fsync"]
