"""`fsmount adopt` refuses what cannot work, says why, and changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.adopt import checks
from fsmount.adopt.state import AdoptedFolder, State, place
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from tests.cli.commands import Cli
from tests.support.trees import facts, make_pictures


@pytest.fixture(name="folder")
def pictures_to_adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fsmount.adopt.adopt.check_fuse", lambda options: None)
    monkeypatch.delenv("FSMOUNT_LOG", raising=False)
    make_pictures(tmp_path / "shots")
    return tmp_path / "shots"


def _refused(cli: Cli, folder: Path, *arguments: object, code: int = 12) -> str:
    """Run the command, which must fail and leave everything as it is. Returns its message."""
    top = folder.parent
    before = facts(top)
    done = cli("adopt", folder, *arguments)
    assert done.code == code, done
    assert facts(top) == before
    return done.sentence()


def test_what_is_no_folder(cli: Cli, folder: Path) -> None:
    assert "there is no such folder" in _refused(cli, folder.parent / "nothing")
    assert "it is not a folder" in _refused(cli, folder / "00.png")


def test_home_and_root(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "it is your home folder, or holds it"
    for home in (folder, folder / "inside"):
        monkeypatch.setenv("HOME", str(home))
        assert why in _refused(cli, folder)
    done = cli("adopt", "/")
    assert (done.code, why in done.sentence()) == (12, True)


def test_a_mount(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("adopt", "/proc")
    assert (done.code, "a filesystem is mounted there" in done.sentence()) == (12, True)
    inside = folder / "inside"
    monkeypatch.setattr("fsmount.mount.mount_users.mounted_below", lambda place: [inside])
    assert f"there are mounts in it: {inside}" in _refused(cli, folder)


def test_stores(cli: Cli, folder: Path) -> None:
    store = folder.parent / "a.store"
    config.make(store, Disk())
    assert "it is a store" in _refused(cli, store)
    assert f"it lies inside the store {store}" in _refused(cli, store / "packs")
    assert f"{store} exists" in _refused(cli, folder, "--store", store)
    config.make(folder / "b.store", Disk())
    assert f"there is a store in it: {folder / 'b.store'}" in _refused(cli, folder)


def test_a_store_that_does_not_lie_apart(cli: Cli, folder: Path) -> None:
    for store in (folder, folder / "store", folder.parent):
        assert "must lie outside of it" in _refused(cli, folder, "--store", store)


def test_the_default_store_exists(cli: Cli, folder: Path) -> None:
    (folder.parent / "shots.store").mkdir()
    assert "shots.store exists" in _refused(cli, folder)


def test_a_link_leads_to_the_folder(cli: Cli, folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    (folder.parent / "shots.store").mkdir()
    assert f"{folder} cannot be adopted" in _refused(cli, link)


def test_not_writable(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access

    def refuse(wrong: Path) -> Callable[[Path, int], bool]:
        return lambda path, mode: path != wrong and real(path, mode)

    for wrong in (folder, folder.parent):
        monkeypatch.setattr(os, "access", refuse(wrong))
        assert f"you cannot write to {wrong}" in _refused(cli, folder)
    monkeypatch.setattr(os, "access", refuse(folder / "01.png"))
    assert "01.png: you cannot read it" in _refused(cli, folder)


def test_another_filesystem(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.stat

    def elsewhere(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        info = real(path, follow_symlinks=follow_symlinks)
        if path != folder.parent:
            return info
        return os.stat_result((*info[:2], info.st_dev + 1, *info[3:10]))

    monkeypatch.setattr(Path, "stat", elsewhere)
    done = cli("adopt", folder)
    assert done.code == 12
    assert "which is on another filesystem" in done.sentence()


def test_the_folder_of_another_user(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert "add -o allow_other" in _refused(cli, folder)


def test_the_working_folder(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deeper").mkdir()
    monkeypatch.chdir(folder / "deeper")
    assert "you are in it" in _refused(cli, folder)


def test_not_enough_space(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_MARGIN_BYTES", 1 << 60)
    assert "MiB are free; choose another disk with --store" in _refused(cli, folder)


def test_differences(cli: Cli, folder: Path) -> None:
    (folder / "2024-06-06 18:40:00.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "2024-06-06 18:41:00.jxl").write_bytes(b"\xff\x0a")
    assert "has .jxl differences, which a store keeps as PNGs" in _refused(cli, folder)


def test_something_else_beside_it(cli: Cli, folder: Path) -> None:
    place(folder).mkdir()
    (place(folder) / "mine").touch()
    assert f"{place(folder)} exists; move it away" in _refused(cli, folder)


def test_a_second_run_at_the_same_time(cli: Cli, folder: Path) -> None:
    place(folder).mkdir()
    first = State(place(folder))
    assert "another fsmount adopts this folder" in _refused(cli, folder, code=11)
    first.close()


def test_another_folder_or_store_than_before(cli: Cli, folder: Path) -> None:
    place(folder).mkdir()
    info = folder.stat()
    first = State(place(folder))
    first.begin(AdoptedFolder(folder, folder.parent / "a.store", info.st_dev, info.st_ino + 1))
    first.close()
    assert "it is not the folder of the first run" in _refused(cli, folder)
    told = _refused(cli, folder, "--store", folder.parent / "b.store", code=2)
    assert "is being adopted into" in told


def test_a_read_only_mount(cli: Cli, folder: Path) -> None:
    assert "cannot be mounted with -o ro" in _refused(cli, folder, "-o", "ro", code=2)


def test_the_store_is_as_private_as_the_folder(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: a run that fails before the mount leaves the folder as it was."""
    folder.chmod(0o700)
    monkeypatch.setattr("fsmount.adopt.adopt.open_store", _fail)
    before = facts(folder)
    done = cli("adopt", folder)
    assert (done.code, done.sentence()) == (1, "Input/output error")
    assert facts(folder) == before
    assert stat.S_IMODE((folder.parent / "shots.store").stat().st_mode) == 0o700


def _fail(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")
