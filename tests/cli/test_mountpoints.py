"""Commands that are given a mountpoint where a store is wanted, and places for new stores.

The table of mounts is made up; tests/e2e has real mounts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.mount import mountpoint
from tests.cli.commands import Cli
from tests.support.trees import make_pictures


@pytest.fixture(name="place")
def mounted_folder(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as the mountpoint of the store."""
    return pretend(tmp_path, tmp_path / "mnt", root, monkeypatch)


def pretend(folder: Path, place: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place.mkdir()
    (folder / "table").write_text(
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"90 20 0:50 / {place} rw,nosuid - fuse.fsmount {source} rw,user_id=0\n"
    )
    monkeypatch.setattr(mountpoint, "_MOUNTS", folder / "table")
    return place


def test_commands_that_read(
    cli: Cli, root: Path, place: Path, source: Path, tmp_path: Path
) -> None:
    cli("import", source, root)
    for command in (
        ["ls", "STORE", "in"],
        ["ls", "-R", "STORE"],
        ["stats", "STORE"],
        ["runs", "STORE", "--json"],
        ["diff", "STORE", "in/01.png", "--json"],
        ["check", "--full", "STORE"],
        ["import", "--dry-run", source, "STORE"],
        ["export", "STORE", tmp_path / "out"],
    ):
        of_mount, of_store = (
            cli(*(path if argument == "STORE" else argument for argument in command))
            for path in (place, root)
        )
        assert of_mount.code == 0
        if command[0] != "export":  # the second one finds the files of the first
            assert of_mount == of_store
    assert len(list((tmp_path / "out" / "in").iterdir())) == 3


def test_the_store_from_the_environment(
    cli: Cli, root: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init", tmp_path / "other")
    monkeypatch.setenv("FSMOUNT_STORE", str(tmp_path / "other"))
    make_pictures(tmp_path / "in")
    cli("import", f"{tmp_path / 'in'}/", root)
    assert cli("ls").out == ""
    assert cli("ls", place).out == cli("ls", root).out != ""


def test_commands_that_change(cli: Cli, root: Path, place: Path, source: Path) -> None:
    for command in (["import", source, place], ["repack", place], ["check", "--repair", place]):
        done = cli(*command)
        assert done.code == 10
        assert done.sentence().startswith(f"{place} is the mountpoint of {root}, not the store.")


def test_a_folder_in_a_mount(cli: Cli, root: Path, place: Path, source: Path) -> None:
    (place / "desk").mkdir()
    for command in (["ls", place / "desk"], ["import", source, place / "desk"]):
        done = cli(*command)
        assert done.code == 10
        assert done.sentence() == (
            f"{place}/desk lies in the mount of {root} at {place}, and is not a store."
            " Name the store or the mountpoint."
        )


def test_the_mount_of_something_else(
    cli: Cli, root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pretend(tmp_path, tmp_path / "mnt", source, monkeypatch)
    for command in (["stats", place], ["import", source, place]):
        done = cli(*command)
        assert done.code == 10
        assert "init" not in done.sentence()
        assert done.sentence() == (
            f"{place} is the mountpoint of {source}, and that is not a store."
        )


def test_places_for_a_new_store(cli: Cli, root: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    for inside in (root / "new", root / "packs" / "deep" / "new", tmp_path / "link" / "new"):
        done = cli("init", inside)
        assert done.code == 2
        assert done.sentence() == (
            f"{inside} lies inside the store {root}. Choose a path outside of it."
        )
    for inside in (place, place / "new"):
        done = cli("init", inside)
        assert done.code == 2
        assert done.sentence() == (
            f"{inside} lies in the mount of {root} at {place}. Choose a path outside of it."
        )
    assert not list(place.iterdir())
    assert not (root / "new").exists()


def test_a_mountpoint_that_is_to_be_made(
    cli: Cli, root: Path, place: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.mount.session.check_fuse", lambda options: None)
    monkeypatch.setenv("FSMOUNT_LOG", str(tmp_path / "log"))
    made = tmp_path / "deep" / "new"

    def refuse(*_: object) -> None:
        assert made.is_dir()
        raise RuntimeError("no")

    monkeypatch.setattr("pyfuse3.init", refuse)
    assert "fsmount mount -p makes it" in cli("mount", "-f", root, made).sentence()
    assert cli("mount", "-p", "-f", root, made).code == 13
    # A mount that fails leaves no folder.
    assert not made.exists()
    done = cli("mount", "-p", tmp_path / "no store", tmp_path / "other")
    assert done.code == 10
    assert not (tmp_path / "other").exists()
    done = cli("mount", source, root)
    assert (done.code, done.sentence()) == (
        2,
        "the store comes first, then the folder: fsmount mount STORE DIR",
    )
    done = cli("mount", place, made)
    assert (done.code, done.sentence().partition(".")[0]) == (
        10,
        f"{place} is the mountpoint of {root}, not the store",
    )


def test_a_store_is_no_mountpoint(cli: Cli, root: Path, place: Path, tmp_path: Path) -> None:
    done = cli("umount", root)
    assert (done.code, done.sentence()) == (
        12,
        f"{root}: it is a store, not a mountpoint; it is mounted at {place}",
    )
    cli("init", tmp_path / "other")
    assert "it is not mounted" in cli("umount", tmp_path / "other").sentence()


def test_the_estimate_of_a_store(cli: Cli, root: Path) -> None:
    done = cli("estimate", root)
    assert (done.code, done.sentence()) == (
        2,
        f"{root} is a store already; see fsmount stats {root}",
    )
