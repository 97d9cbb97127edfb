"""Two writers of one store: the second is refused, or the first stops. No file is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from fsmount.store.lock import Lock
from fsmount.store.store import open_store
from tests.cli.commands import process
from tests.e2e.mounts import Mount, missing
from tests.support.calls import raises
from tests.support.paths import DATA

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

FRAMES = sorted((DATA / "desk").glob("*.png"))


def take_over(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open and close the store as another writer that no lock keeps out."""
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda fd, how: None)
        (store / "lock").write_bytes(b"")
        open_store(store).close()


def check(store: Path) -> None:
    """Check that the store has no damage and has all pictures."""
    process("import", FRAMES[0], store)  # the import encodes staged files, too
    found = process("check", "--full", store)
    assert found.code == 0, found
    for frame in FRAMES:
        target = store.parent / "out" / frame.name
        assert process("export", store, target.parent, frame.name).code == 0
        assert target.read_bytes() == frame.read_bytes()


def test_a_mount_whose_store_is_taken(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    for frame in FRAMES:
        shutil.copy(frame, mount.path)
    kept = (mount.path / FRAMES[0].name).open("r+b", buffering=0)
    take_over(mount.store, monkeypatch)
    # The close of a handle may be refused too: the mount may already know that it lost the store.
    with raises(errno.EIO), kept:
        kept.write(b"late")
    with raises(errno.EIO):
        (mount.path / "new.png").write_bytes(b"late")
    with raises(errno.EIO):
        (mount.path / FRAMES[1].name).unlink()
    folder = os.open(mount.path, os.O_RDONLY)
    with raises(errno.EIO):
        os.fsync(folder)
    os.close(folder)
    assert (mount.path / FRAMES[1].name).read_bytes() == FRAMES[1].read_bytes()
    assert os.getxattr(mount.path, "user.fsmount.staged") == b"0", "nobody waits for encoding"
    before = sorted(path.name for path in (mount.store / "staging").iterdir())
    mount.stop(drain=True)
    assert sorted(path.name for path in (mount.store / "staging").iterdir()) == before
    assert mount.log.read_text().count("CRITICAL") == 1
    check(mount.store)


@contextmanager
def other_path(store: Path) -> Iterator[Path]:
    """A path to the same store that does not pass flock on."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed")
    view = store.parent / "view"
    view.mkdir()
    subprocess.run(["bindfs", store.parent, view], check=True)
    try:
        yield view / store.name
    finally:
        subprocess.run(["umount", view], check=True)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_second_mount_by_another_path(tmp_path: Path, swapped: bool) -> None:
    (tmp_path / "real").mkdir()
    store = tmp_path / "real" / "store"
    assert process("init", store).code == 0
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    with other_path(store) as view:
        first, second = (view, store) if swapped else (store, view)
        assert process("mount", first, places[0]).code == 0
        try:
            for frame in FRAMES:
                shutil.copy(frame, places[0])
            refused = process("mount", second, places[1])
            assert refused.code == 11
            assert "by another path" in refused.err
            assert mounted_at(places[1]) is None
            assert process("import", FRAMES[0], second).code == 11
            # Reading is allowed.
            assert process("ls", store).out.count("\n") == len(FRAMES)
        finally:
            assert process("umount", places[0]).code == 0
        Lock(second / "lock").release()
    check(store)
