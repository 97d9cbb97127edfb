"""A mount that prunes by the policy of its store while no program uses it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.mount.power_supply import on_mains
from fsmount.store import config
from fsmount.store.retention.amounts import Amount
from fsmount.store.retention.limits import TrashLimits
from fsmount.store.retention.policy import Policy
from fsmount.store.retention.rules import Rules
from fsmount.store.store import open_read_store, open_store
from tests.e2e.mounts import Mount, missing
from tests.support.frames import png, screens

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(not on_mains(), reason="this machine runs on its battery"),
]


@pytest.fixture(name="mount")
def a_mount(tmp_path: Path) -> Iterator[Mount]:
    """A new mount, which prunes after one idle second."""
    made = Mount(tmp_path, "prune=1")
    made.start()
    yield made
    made.clean()


def names(count: int) -> list[str]:
    return [f"2024-06-05T{number:02d}:00:00.png" for number in range(count)]


def write(mount: Mount) -> dict[str, bytes]:
    """Write pictures of 16 hours, and wait until they are encoded."""
    files = dict(zip(names(16), map(png, screens(16, height=64)), strict=True))
    for name, data in files.items():
        (mount.path / name).write_bytes(data)
    while os.getxattr(mount.path, "user.fsmount.staged") != b"0":
        time.sleep(0.05)
    return files


def change(mount: Mount, **values: object) -> None:
    with open_store(mount.store) as store:
        config.change(store.layout, store.disk, **values)


def wait_for(mount: Mount, wanted: list[str]) -> None:
    """Wait until the folder has these files. Asks the store, so that the mount stays idle."""
    end = time.monotonic() + 120
    while True:
        with open_read_store(mount.store) as store:
            found = [os.fsdecode(name) for name, _ in store.index.by_name(1)]
        if found == wanted:
            return
        assert time.monotonic() < end, (found, mount.log.read_text())
        time.sleep(0.2)


def test_the_policy_of_the_store(mount: Mount) -> None:
    files = write(mount)
    os.setxattr(mount.path / names(16)[3], "user.fsmount.keep", b"1")
    mount.stop()
    policy = Policy(Rules(last=Amount(count=5)))
    change(mount, policy=policy.value())
    mount.start()
    kept = [names(16)[3], *names(16)[11:]]
    # The kernel knows all names, and a program reads a file that will go.
    assert sorted(os.listdir(mount.path)) == names(16)
    opened = (mount.path / names(16)[0]).open("rb")
    assert opened.read(100) == files[names(16)[0]][:100]
    wait_for(mount, kept)
    end = time.monotonic() + 10
    while (mount.path / names(16)[0]).exists():
        assert time.monotonic() < end, "the kernel still knows a name that is gone"
        time.sleep(0.1)
    assert sorted(os.listdir(mount.path)) == kept
    assert opened.read() == files[names(16)[0]][100:]
    opened.close()
    for name in kept:
        assert (mount.path / name).read_bytes() == files[name]
    # A new file may have a name that went.
    (mount.path / names(16)[0]).write_bytes(b"new")
    assert (mount.path / names(16)[0]).read_bytes() == b"new"
    assert "policy --keep-last 5: 10 of 10 pictures went" in mount.log.read_text()
    mount.stop()
    with open_read_store(mount.store) as store:
        found = store.index.pruned()
        assert found is not None
        assert found[1] == 10
        assert len(store.index.trash_bytes()) == 10


def test_names_leave_the_trash_and_give_their_space_back(mount: Mount) -> None:
    files = write(mount)
    mount.stop()
    policy = Policy(Rules(last=Amount(count=5)))
    no_trash = TrashLimits(days=0)
    change(mount, policy=policy.value(), trash=no_trash.value())
    mount.start()
    wait_for(mount, names(16)[11:])
    end = time.monotonic() + 60
    while "11 files left the trash" not in mount.log.read_text():
        assert time.monotonic() < end, mount.log.read_text()
        time.sleep(0.2)
    for name in names(16)[11:]:
        assert (mount.path / name).read_bytes() == files[name]
