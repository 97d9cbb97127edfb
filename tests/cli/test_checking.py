"""The results of check and of its repair."""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store.store import open_read_store, open_store
from tests.cli.commands import Cli
from tests.support.encoding import forget_caches
from tests.support.packs import drop_parity, flip


def test_damage(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    drop_parity(root)
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
    drop_parity(root)
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


def test_parity_mends(cli: Cli, root: Path, source: Path) -> None:
    cli("import", source, root)
    pack = root / "packs" / "00000001.zip"
    good = pack.read_bytes()
    pack.write_bytes(bytes(5000) + good[5000:])
    assert cli("verify", source, root).code == 0
    done = cli("check", root, "--full")
    assert done.code == 20
    why = "damaged blocks of 1024 bytes: 5, the first at 0; --repair rebuilds all of them"
    assert f"packs/00000001.zip: {why}" in done.err
    done = cli("check", root, "--repair")
    assert done.code == 21
    assert done.out.startswith("1 pack healed by parity; ")
    assert pack.read_bytes().startswith(good[:5000])
    assert cli("check", root, "--full").code == 0
    assert cli("stats", root, "--json").json()["parity_bytes"] > 0


def test_the_share_of_parity(cli: Cli, tmp_path: Path, source: Path) -> None:
    for percent in (0, 25):
        store = tmp_path / f"{percent}.store"
        assert cli("init", store, "--parity", percent).code == 0
        assert cli("import", source, store).code == 0
        assert cli("check", "--full", store).out.endswith("no damage found\n")
        assert (cli("stats", store, "--json").json()["parity_bytes"] > 0) == bool(percent)
    assert cli("init", tmp_path / "other", "--parity", 26).code == 2


def test_repair_needs_a_store_for_itself(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("check", "--repair", tmp_path / "none").code == 10
    store = open_store(root)
    try:
        assert cli("check", "--repair", root).code == 11
    finally:
        store.close()
