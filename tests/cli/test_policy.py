"""`fsmount policy`, `fsmount prune --policy`, and what `stats` says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.support.frames import png, screens


@pytest.fixture(name="filled")
def a_store_of_a_day(cli: Cli, root: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for hour, frame in enumerate(screens(6, height=64)):
        (folder / f"2024-06-05T{hour:02d}:00:00.png").write_bytes(png(frame))
    assert cli("import", f"{folder}/", root).code == 0
    return root


def test_set_show_clear(cli: Cli, filled: Path) -> None:
    assert cli("policy", "show", filled).out == "there is no policy: a mount keeps everything\n"
    assert cli("stats", filled, "--json").json()["policy"] is None
    done = cli("policy", "set", "--keep-last", "2", "--budget", "1G", filled)
    assert done.out == "policy: --keep-last 2 --budget 1073741824\n"
    text = "--keep-last 2 --budget 1073741824\nevery 24 hours, by a mount with -o prune\n"
    assert cli("policy", "show", filled).out == text
    assert cli("policy", "set", "--keep-last", "2", "--every-hours", "9", filled).code == 0
    shown = cli("policy", "show", filled, "--json").json()["policy"]
    assert (shown["keep"], shown["every_hours"]) == ({"last": "2"}, 9)
    assert cli("policy", "clear", filled).code == 0
    assert "policy" not in json.loads((filled / "fsmount.json").read_text())
    assert cli("policy", "show", filled, "--json").json()["policy"] is None
    assert cli("check", filled).code == 0


def test_the_next_run(cli: Cli, filled: Path) -> None:
    assert cli("policy", "set", "--keep-last", "2", filled).code == 0
    said = cli("stats", filled, "--json").json()["policy"]
    assert (said["last_ns"], said["next_files"]) == (None, 4)
    lines = cli("stats", filled).out.splitlines()
    assert "policy: --keep-last 2" in lines
    assert any("next run of a mount with -o prune" in line and "4 files" in line for line in lines)
    assert cli("prune", "-y", "--policy", filled, "--json").json()["dropped"] == 4
    assert cli("stats", filled, "--json").json()["policy"]["next_files"] == 0


def test_wrong_use(cli: Cli, filled: Path) -> None:
    assert "has no policy" in cli("prune", "-y", "--policy", filled).sentence()
    assert "name at least one rule" in cli("policy", "set", filled).sentence()
    assert cli("policy", "set", "--drop-idle", filled).code == 0
    both = cli("prune", "-y", "--policy", "--keep-last", "1", filled)
    assert (both.code, "leave the others out" in both.err) == (2, True)
    config = filled / "fsmount.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"keep": {"x": 1}}}))
    done = cli("policy", "show", filled)
    assert done.code == 1
    assert "rules that this fsmount does not know; fsmount policy set writes" in done.err
