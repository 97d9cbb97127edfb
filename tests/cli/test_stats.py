"""A new store, and what stats tells of a store."""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store import config
from fsmount.store.store import open_store
from fsmount.store.transfer.tree import find
from tests.cli.commands import Cli


def test_init(cli: Cli, tmp_path: Path) -> None:
    made = cli("init", tmp_path / "deep" / "new", "--json").json()
    assert made["format"] == config.FORMAT
    assert made["store"] == str(tmp_path / "deep" / "new")
    assert cli("stats", tmp_path / "deep" / "new").code == 0
    for taken in (tmp_path / "deep" / "new", tmp_path):
        again = cli("init", taken)
        assert again.code == 2
        assert "Choose a new path" in again.sentence()


def test_numbers_in_words(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    assert cli("stats", root).out.startswith("0 files, 0 bytes in ")
    assert "smaller" not in cli("stats", root).out
    assert cli("import", source / "00.png", root).out.startswith("1 file imported (")
    assert cli("stats", root).out.startswith("1 file, ")
    assert cli("export", root, tmp_path / "out").out.startswith("1 file exported (")


def test_stats_names_the_log(cli: Cli, root: Path) -> None:
    assert cli("stats", root, "--json").json()["log"] is None
    (root / "mount.log").touch()
    assert cli("stats", root, "--json").json()["log"] == f"{root}/mount.log"
    assert f"log of its mounts: {root}/mount.log\n" in cli("stats", root).out


def test_import_tells_the_size_that_stats_tells(cli: Cli, root: Path, source: Path) -> None:
    told = cli("import", source, root, "--json").json()["stats"]
    found = cli("stats", root, "--json").json()
    assert told.items() <= found.items()
    words = cli("stats", root).out.partition(" in ")[2].partition(",")[0].split("\n")[0]
    assert cli("import", source, root).out.rstrip().endswith(f" in {words}")


def delete(root: Path, *paths: str) -> None:
    """Delete files of a store, as rm does through a mount."""
    store = open_store(root)
    for path in paths:
        folder, _, name = os.fsencode(path).rpartition(b"/")
        parent = find(store, folder)
        assert parent is not None
        inode = store.index.unlink(parent.ino, name, 1)
        store.index.purge(inode.ino)
    store.close()


def packs_of(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "packs").glob("*.zip"))


def test_what_a_repack_would_give_back(cli: Cli, root: Path, source: Path) -> None:
    for number in range(4):
        (source / f"{number}").write_bytes(os.urandom(50_000))
    cli("import", f"{source}/", root)
    assert cli("stats", root, "--json").json()["reclaimable_bytes"] == 0
    assert "repack" not in cli("stats", root).out
    # A delta needs its keyframe, whose bytes stay.
    delete(root, "0", "1", "00.png")
    dead = cli("stats", root, "--json").json()["reclaimable_bytes"]
    assert 100_000 < dead < 101_000
    assert "repack would give back 100" in cli("stats", root).out
    before = packs_of(root)
    repacked = cli("repack", root, "--json").json()
    assert before - packs_of(root) >= dead
    found = cli("stats", root, "--json").json()
    assert found["reclaimable_bytes"] == 0
    assert repacked["bytes_after"] == found["stored_bytes"]


def test_pictures_in_the_trash(cli: Cli, root: Path, source: Path) -> None:
    trash = source / ".Trash-1000" / "files"
    trash.mkdir(parents=True)
    (source / "00.png").rename(trash / "00.png")
    (source / ".Trash-x").mkdir()
    cli("import", f"{source}/", root)
    assert sum(run["pictures"] for run in cli("runs", root, "--json").json()["runs"]) == 2
    inside = cli("runs", root, ".Trash-1000", "--json").json()["runs"]
    assert sum(run["pictures"] for run in inside) == 1
    assert cli("stats", root, "--json").json()["trash_files"] == 1
    assert "1 file (" in cli("stats", root).out.partition("raw")[2]
