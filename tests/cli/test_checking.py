"""The results of check and of its repair."""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store.store import open_read_store, open_store
from tests.cli.commands import Cli
from tests.support.encoding import forget_caches
from tests.support.packs import flip


def test_damage(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    store = open_read_store(root)
    key = store.index.object(1)
    store.close()
    flip(root / "packs" / "00000001.zip", key.offset + key.length - 1)
    forget_caches()
    assert cli("check", root).code == 0
    done = cli("check", root, "--full")
    assert done.code == 20
    assert done.out == "3 objects rebuilt and compared: 1 finding\n"
    assert done.err.startswith("damaged entries: 1; files that need them: 3\n")
    assert "cannot be read: in/00.png" in done.err
    found = cli("check", root, "--full", "--json")
    assert found.code == 20
    assert (found.json()["damaged_entries"], found.json()["files_hit"]) == (1, 3)
    assert {name for item in found.json()["findings"] for name in item["files"]} == {
        "in/00.png",
        "in/01.png",
        "in/02.png",
    }
    done = cli("export", root, tmp_path / "out")
    assert done.code == 3
    assert "3 problems:" in done.err
    assert cli("verify", source, root).code == 1
    (root / "packs" / "00000001.zip").unlink()
    assert "00000001.zip: the pack is missing" in cli("check", root).err


def test_repair_tells_what_it_did(cli: Cli, root: Path, source: Path) -> None:
    assert cli("import", source, root).code == 0
    assert cli("check", "--repair", root).code == 0
    (root / "index.sqlite").unlink()
    assert cli("check", root).code == 20
    done = cli("check", "--repair", "--json", root)
    assert done.code == 21
    found = done.json()
    assert found["rebuilt"]
    assert (found["lost"], found["renamed"], found["left"]) == ([], [], [])
    assert cli("verify", f"{source}", root).code == 0
    pack = root / "packs" / "00000001.zip"
    os.truncate(pack, pack.stat().st_size // 2)
    done = cli("check", "--repair", root)
    assert done.code == 22
    assert "lost: in/" in done.out + done.err
    assert cli("check", "--full", root).code == 0
    assert cli("check", "--repair", root).code == 0


def test_repair_needs_a_store_for_itself(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("check", "--repair", tmp_path / "none").code == 10
    store = open_store(root)
    try:
        assert cli("check", "--repair", root).code == 11
    finally:
        store.close()
