"""Which mountpoints are refused, and what the errors say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fsmount.errors import BadMountpoint, NoFuse
from fsmount.mount import mountpoint
from fsmount.mount import unmount as unmounting
from fsmount.mount.options import MountOptions

TABLE = """\
22 28 0:21 / /proc rw,nosuid shared:14 - proc proc rw
90 28 0:50 / {place} rw,nosuid shared:20 - fuse.fsmount /my\\040store rw,user_id=0
91 28 0:51 / {other} rw - tmpfs tmpfs rw
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "a place"
    folder.mkdir()
    return folder


def use_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path, other: str) -> None:
    table = tmp_path / "mountinfo"
    escaped = str(place).replace(" ", "\\040")
    table.write_text(TABLE.format(place=escaped, other=other))
    monkeypatch.setattr(mountpoint, "_MOUNTS", table)


def reason(place: Path, store: Path) -> str:
    with pytest.raises(BadMountpoint) as caught:
        mountpoint.check_mountpoint(place, store)
    assert caught.value.exit_code == 12
    assert str(place) in str(caught.value)
    return str(caught.value)


def test_an_empty_folder_is_fine(place: Path, tmp_path: Path) -> None:
    mountpoint.check_mountpoint(place, tmp_path / "store")


def test_refusals(place: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert "no such folder" in reason(tmp_path / "missing", store)
    file = tmp_path / "file"
    file.touch()
    assert "not a folder" in reason(file, store)
    inner = store / "packs"
    inner.mkdir(parents=True)
    assert "inside the store" in reason(inner, store)
    assert "inside the store" in reason(store, store)
    link = tmp_path / "link"
    link.symlink_to(inner)
    assert "inside the store" in reason(link, store)
    (place / "x").touch()
    assert "not empty" in reason(place, store)
    mountpoint.check_mountpoint(place, store, nonempty=True)


@pytest.mark.parametrize("source", ["old", "old/deep", "photos.xml"])
def test_what_is_read_by_its_path_is_not_hidden(place: Path, source: str, tmp_path: Path) -> None:
    (place / source).mkdir(parents=True)
    mountpoint.check_mountpoint(place, place / source, nonempty=True)
    link = tmp_path / "link"
    link.symlink_to(place / source)
    for path in (place / source, link):
        with pytest.raises(BadMountpoint, match=f"{path.name} lies in it, and would be hidden"):
            mountpoint.check_mountpoint(place, path, nonempty=True, by_path=True)
    (tmp_path / "other").mkdir()
    mountpoint.check_mountpoint(tmp_path / "other", place / source, by_path=True)


def test_a_mount_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_table(monkeypatch, tmp_path, place, "/elsewhere")
    assert "/my store is mounted there already" in reason(place, tmp_path / "store")


def test_a_stale_mount_says_what_to_do(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(self: Path, **_: object) -> os.stat_result:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(Path, "stat", stale)
    assert f"fsmount umount '{place}'" in reason(place, tmp_path / "store")


def test_unmount_refuses_what_is_not_ours(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    use_table(monkeypatch, tmp_path, place, str(other))
    with pytest.raises(BadMountpoint, match="nothing is mounted"):
        unmounting.unmount(tmp_path)
    with pytest.raises(BadMountpoint, match="not a mount of fsmount"):
        unmounting.unmount(other)


def test_fuse_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mountpoint, "_DEVICE", tmp_path / "fuse")
    with pytest.raises(NoFuse, match="modprobe fuse") as caught:
        mountpoint.check_fuse(MountOptions())
    assert caught.value.exit_code == 13


def test_fuse_not_permitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setattr(mountpoint, "_DEVICE", device)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NoFuse, match="Permission denied"):
        mountpoint.check_fuse(MountOptions())


def test_what_a_plain_user_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device, config = tmp_path / "fuse", tmp_path / "fuse.conf"
    device.touch()
    monkeypatch.setattr(mountpoint, "_DEVICE", device)
    monkeypatch.setattr(mountpoint, "_CONFIG", config)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NoFuse, match="fusermount3 is not installed"):
        mountpoint.check_fuse(MountOptions())
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    mountpoint.check_fuse(MountOptions())
    with pytest.raises(NoFuse, match="user_allow_other"):
        mountpoint.check_fuse(MountOptions(allow_other=True))
    config.write_text("#user_allow_other\n")
    with pytest.raises(NoFuse, match="user_allow_other"):
        mountpoint.check_fuse(MountOptions(allow_other=True))
    config.write_text("user_allow_other\n")
    mountpoint.check_fuse(MountOptions(allow_other=True))
