"""Staged files and their tokens."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.packs.staging import Staging, new_writer, writer_of
from tests.support.frames import FlakyDisk


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
        # An index can hold such a token.
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


def test_a_file_that_could_not_be_created_does_not_stop_the_next(tmp_path: Path) -> None:
    disk = FlakyDisk()
    staging = Staging(tmp_path, disk)
    disk.fail_once("create")
    with pytest.raises(OSError):
        staging.create()
    token = staging.create()
    assert staging.tokens() == [token]


def test_the_folder_is_forced_through_the_disk(tmp_path: Path) -> None:
    disk = FlakyDisk()
    Staging(tmp_path, disk).fsync_folder()
    assert [call for call, _ in disk.calls] == ["fsync"]


# -- fsyncs that fail


def staged(staging: Staging, data: bytes = b"bytes") -> int:
    token = staging.create()
    staging.path(token).write_bytes(data)
    return token


def test_a_file_and_then_its_name_are_forced_the_name_once(tmp_path: Path, disk: FlakyDisk) -> None:
    asked: list[str] = []

    def hook(call: str, what: object) -> int:
        if call == "fsync":
            asked.append(Path(os.readlink(f"/proc/self/fd/{what}")).name)
        return 0

    disk.hook = hook
    staging = Staging(tmp_path, disk)
    one, other = staged(staging), staged(staging)
    for token in (one, other, one):
        staging.force_by_name(token)
    assert asked == [str(one), tmp_path.name, str(other), str(one)]
    # The process that made the existing names may have died before it forced them.
    asked.clear()
    Staging(tmp_path, disk).force_by_name(one)
    assert asked == [str(one), tmp_path.name]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failed_fsync_is_never_asked_again(tmp_path: Path, disk: FlakyDisk, code: int) -> None:
    staging = Staging(tmp_path, disk)
    bad, good = staged(staging), staged(staging)
    disk.fail_once("fsync", code)
    for _ in range(3):
        with pytest.raises(OSError, check=lambda error: error.errno == code):
            staging.force_by_name(bad)
    assert sum(call == "fsync" for call, _ in disk.calls) == 1
    assert staging.has_failed(bad)
    staging.force_by_name(good)
    staging.remove(bad)
    assert not staging.has_failed(bad)


def test_a_failed_fsync_of_the_folder_counts_for_all_new_names(
    tmp_path: Path, disk: FlakyDisk
) -> None:
    staging = Staging(tmp_path, disk)
    before = staged(staging)
    staging.force_by_name(before)
    one, other = staged(staging), staged(staging)
    disk.fail_once("fsync", skip=1)
    with pytest.raises(OSError):
        staging.force_by_name(one)
    assert [staging.has_failed(token) for token in (before, one, other)] == [False, True, True]
    staging.force_by_name(before)
    later = staged(staging)
    staging.force_by_name(later)


def test_two_that_force_at_once_both_hear_of_a_failure(tmp_path: Path, disk: FlakyDisk) -> None:
    staging = Staging(tmp_path, disk)
    token = staged(staging)
    inside, go = threading.Event(), threading.Event()

    def hook(call: str, what: object) -> int:
        if call == "fsync" and not inside.is_set():
            inside.set()
            assert go.wait(10)
            return errno.EIO
        return 0

    disk.hook = hook
    heard: list[bool] = []

    def force() -> None:
        try:
            staging.force_by_name(token)
            heard.append(False)
        except OSError:
            heard.append(True)

    threads = [threading.Thread(target=force) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    go.set()
    for thread in threads:
        thread.join(10)
    assert heard == [True, True]


@pytest.mark.parametrize(
    ("data", "size"), [(b"", 0), (b"bytes", 5), (b"x" * 3_000_000, 3_000_000), (b"y", 1 << 21)]
)
def test_what_the_kernel_still_has_goes_to_a_new_file(
    tmp_path: Path, disk: FlakyDisk, data: bytes, size: int
) -> None:
    staging = Staging(tmp_path, disk)
    token = staged(staging, data)
    os.truncate(staging.path(token), size)
    disk.fail_once("fsync")
    with pytest.raises(OSError):
        staging.force_by_name(token)
    fresh = staging.rescue(token)
    assert fresh is not None
    assert fresh != token
    assert staging.path(fresh).read_bytes() == data + bytes(size - len(data))
    staging.force_by_name(fresh)


def test_what_the_kernel_has_dropped_is_not_believed(tmp_path: Path, disk: FlakyDisk) -> None:
    staging = Staging(tmp_path / "staging", disk)
    staging.folder.mkdir()
    token = staged(staging)
    for code in (errno.EAGAIN, errno.EOPNOTSUPP):
        disk.fail_once("read_cached", code)
        assert staging.rescue(token) is None
        assert staging.tokens() == [token]
    place = staging.set_aside(token)
    assert place.parent == tmp_path / "lost"
    assert place.read_bytes() == b"bytes"
    assert staging.tokens() == []


@pytest.mark.parametrize("call", ["create", "pwrite", "fsync"])
def test_a_rescue_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, disk: FlakyDisk, call: str
) -> None:
    staging = Staging(tmp_path, disk)
    token = staged(staging)
    disk.fail_once(call, errno.ENOSPC)
    with pytest.raises(OSError):
        staging.rescue(token)
    assert staging.tokens() == [token]


def test_pages_in_memory_are_told_from_pages_on_the_disk(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.create(tmp_path / "file")
    disk.pwrite(fd, b"x" * 300_000, 0)
    try:
        assert disk.read_cached(fd, 1 << 20, 0) == b"x" * 300_000
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this filesystem cannot tell what is in memory")
    os.fsync(fd)
    with pytest.raises(BlockingIOError):
        # The kernel keeps a page that somebody uses at this moment, for example to write it.
        for _ in range(500):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            disk.read_cached(fd, 1 << 20, 0)
            time.sleep(0.01)
    os.close(fd)
