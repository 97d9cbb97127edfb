"""Which processes keep a mount in use, according to a made-up /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsmount.mount import mount_users
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mount_users import Elsewhere

LINE = "1 2 {device} / {place} rw - fuse.fsmount /store rw\n"


def filesystem(device: str, source: str = "/store") -> Mounted:
    return Mounted(Path("/m"), "fuse.fsmount", source, device)


class Proc:
    """A folder with the same layout as /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self, name: str, *, namespace: str | None, mounts: dict[str, str], **links: str
    ) -> None:
        """Add a process.

        `namespace` is its mount namespace (None: hidden), `mounts` maps mountpoints to devices, and
        `links` are its open files and its working directory.
        """
        folder = self.root / name
        (folder / "ns").mkdir(parents=True)
        (folder / "fd").mkdir()
        (folder / "comm").write_text("vi m\n")
        if namespace is not None:
            (folder / "ns" / "mnt").symlink_to(namespace)
        lines = [LINE.format(device=device, place=place) for place, device in mounts.items()]
        (folder / "mountinfo").write_text("".join(lines))
        for link, target in links.items():
            where = folder / link if link == "cwd" else folder / "fd" / link
            where.symlink_to(target)


@pytest.fixture(name="proc")
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    (tmp_path / "proc").mkdir()
    (tmp_path / "connections").mkdir()
    monkeypatch.setattr(mount_users, "PROC", tmp_path / "proc")
    monkeypatch.setattr(mount_users, "_CONNECTIONS", tmp_path / "connections")
    made = Proc(tmp_path / "proc")
    made.add("self", namespace="mnt:[1]", mounts={"/o": "0:9", "/p": "0:8"})
    return made


def test_mounted_elsewhere(proc: Proc) -> None:
    proc.add("7", namespace="mnt:[1]", mounts={"/o": "0:9"})
    proc.add("8", namespace="mnt:[2]", mounts={"/a": "0:9", "/b": "0:7"})
    proc.add("9", namespace="mnt:[2]", mounts={"/a": "0:9"})
    assert mount_users.elsewhere(filesystem("0:9")) == [
        Elsewhere(Path("/o"), None),
        Elsewhere(Path("/a"), 8),
    ]
    assert mount_users.elsewhere(filesystem("0:5")) == []


def test_a_device_number_of_another_filesystem(proc: Proc, tmp_path: Path) -> None:
    """The kernel gives the number to the next mount as soon as the filesystem is gone."""
    (tmp_path / "connections" / "9").mkdir()
    assert mount_users.is_connected(filesystem("0:9")) is True
    assert mount_users.is_connected(filesystem("0:9", "/gone")) is False
    assert mount_users.elsewhere(filesystem("0:9", "/gone")) == []


def test_namespaces_of_other_users(proc: Proc) -> None:
    """The kernel hides the namespaces of other users. Equal mount tables are reported once."""
    proc.add("1", namespace=None, mounts={"/o": "0:9", "/p": "0:8"})
    proc.add("5", namespace=None, mounts={"/x": "0:9"})
    proc.add("6", namespace=None, mounts={"/x": "0:9"})
    proc.add("7", namespace=None, mounts={})
    (proc.root / "7" / "mountinfo").unlink()
    assert mount_users.elsewhere(filesystem("0:9")) == [
        Elsewhere(Path("/o"), None),
        Elsewhere(Path("/x"), 5),
    ]


def test_users(proc: Proc) -> None:
    proc.add("3", namespace=None, mounts={}, cwd="/m")
    proc.add("4", namespace=None, mounts={}, **{"5": "/m/a b (deleted)"})
    proc.add("5", namespace=None, mounts={}, **{"5": "/mm/a"}, cwd="/")
    proc.add(str(os.getpid()), namespace=None, mounts={}, cwd="/m")
    assert mount_users.users("/m") == [3, 4]
    assert mount_users.named(3) == "3 (vi m)"
    assert mount_users.named(6) == "6"


def test_what_serves(proc: Proc, tmp_path: Path) -> None:
    proc.add("3", namespace=None, mounts={}, **{"4": "/dev/fuse"})
    proc.add("4", namespace=None, mounts={}, **{"4": "/dev/null"})
    assert mount_users.serves(3) is True
    assert mount_users.serves(4) is False
    assert mount_users.serves(99) is None
    assert mount_users.is_connected(filesystem("0:9")) is None
    (tmp_path / "connections" / "8").mkdir()
    assert mount_users.is_connected(filesystem("0:9")) is False
    assert mount_users.is_connected(filesystem("0:8")) is True


def test_a_few_of_many() -> None:
    assert mount_users.listed(["a", "b"]) == "a, b"
    assert mount_users.listed([str(number) for number in range(9)]) == "0, 1, 2, 3, 4 and 4 more"
