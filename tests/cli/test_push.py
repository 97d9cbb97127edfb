"""`fsmount push`, `pull`, and `ls` and `check` of a URL: what they print, and their exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.support.packs import flip
from tests.support.remotes import new_identity


def test_there_and_back(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    url = f"file://{tmp_path}/remote"
    done = cli("push", root, url, "--json").json()
    assert (done["generation"], done["new"], done["files"], done["problems"]) == (1, True, 3, [])
    assert done["sent_bytes"] > 1000
    assert cli("push", root, url).out == f"{url} has all 3 files; 0 bytes sent\n"
    assert cli("ls", "-R", url).out == cli("ls", "-R", root).out
    assert cli("check", url).out.endswith("read and compared: no damage found\n")
    back = tmp_path / "back"
    assert cli("pull", url, back).out.startswith(f"{back} has all 3 files; ")
    assert cli("verify", source, back).out == "3/3 identical\n"
    assert cli("check", back, "--full").code == 0


def test_the_stores_of_several_machines(
    cli: Cli, root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("import", source, root)
    laptop = tmp_path / "laptop.store"
    cli("init", laptop)
    cli("import", source, laptop)
    url = f"file://{tmp_path}/remote"
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))
    identity, public = new_identity(tmp_path)
    cli("push", root, f"{url}/desk")
    cli("push", laptop, f"{url}/my%20laptop", "--encrypt", "--recipient", public)
    assert "FSMOUNT_IDENTITY" in cli("ls", url).sentence()
    monkeypatch.setenv("FSMOUNT_IDENTITY", str(identity))
    rows = [json.loads(line) for line in cli("ls", url, "--json").out.splitlines()]
    assert [(row["name"], row["path"], row["kind"]) for row in rows] == [
        ("desk", "desk", "folder"),
        ("my laptop", "my laptop", "folder"),
    ]
    assert all(abs(row["mtime_ns"] / 1e9 - time.time()) < 600 for row in rows)
    assert [line.split()[-1] for line in cli("ls", url).out.splitlines()] == ["desk", "laptop"]
    # A key that is named must open all of them.
    assert "not encrypted" in cli("ls", url, "--identity", identity).sentence()
    assert "not encrypted" in cli("ls", f"{url}/desk", "--identity", identity).sentence()
    (tmp_path / "remote-two").mkdir()
    cli("push", laptop, f"{url}-two/laptop", "--encrypt", "--recipient", public)
    found = cli("ls", f"{url}-two", "--identity", identity)
    assert found.out.split()[-1] == "laptop"
    # The store of one of them, by its URL and by its path.
    assert cli("ls", f"{url}/desk").out == cli("ls", root).out
    assert cli("ls", url, "desk").out == cli("ls", root).out
    assert cli("ls", url, "/my laptop/").out == cli("ls", laptop).out
    top = source.name
    paths = [f"{top}/{each.name}" for each in sorted(source.iterdir())]
    (line,) = cli("ls", url, f"desk/{paths[0]}", "--json").out.splitlines()
    assert json.loads(line)["path"] == f"desk/{paths[0]}"
    # As a mount shows them.
    everything = [
        json.loads(line)["path"] for line in cli("ls", "-R", url, "--json").out.splitlines()
    ]
    assert everything == [
        path
        for machine in ("desk", "my laptop")
        for path in (machine, f"{machine}/{top}", *(f"{machine}/{path}" for path in paths))
    ]
    only = cli("ls", "-R", url, "--since", "2000-01-01", "--json").out.splitlines()
    assert [json.loads(line)["path"] for line in only] == [
        f"{machine}/{path}" for machine in ("desk", "my laptop") for path in paths
    ]
    assert "there is no 'other' in file://" in cli("ls", url, "other").sentence()
    assert f"there is no 'other' in {url}/desk" in cli("ls", url, "desk/other").sentence()
    assert cli("ls", url, "desk", "desk").code == 2


def test_damage(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    url = f"file://{tmp_path}/remote"
    cli("push", root, url)
    (pack,) = (tmp_path / "remote/tails").iterdir()
    flip(pack, 200)
    done = cli("check", url)
    assert (done.code, f"{url}/tails/{pack.name}" in done.err) == (20, True)
    found = cli("check", url, "--json")
    assert (found.code, len(found.json()["findings"])) == (20, 1)
    assert cli("pull", url, tmp_path / "back").code == 20
    assert cli("push", root, url, "--reread").code == 0
    assert cli("check", url).code == 0


def test_refusals(cli: Cli, root: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    assert cli("push", root).code == 2
    assert cli("push", root, "/a/path").code == 2
    assert cli("push", root, url, url).code == 2
    for command in (("pull", url, tmp_path / "back"), ("ls", url), ("check", url)):
        done = cli(*command)
        assert (done.code, "no store was pushed there" in done.sentence()) == (10, True)
    assert cli("check", url, "--full").code == 2
    assert cli("push", root, f"file://{tmp_path}/not/mounted").code == 1


def test_prune(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    for number, picture in enumerate(sorted(source.iterdir())):
        cli("import", picture, root)
        assert cli("push", root, url, "--json").json()["generation"] == number + 1
    done = cli("push", root, url, "--prune").out.splitlines()
    assert done[1] == "0 states and 0 objects (0 bytes) removed, 3 states kept"
    options = ("--prune", "--keep-states", 1)
    before = sorted((tmp_path / "remote").rglob("*"))
    trial = cli("push", root, url, *options, "-n", "--json").json()
    assert (trial["dry_run"], sorted((tmp_path / "remote").rglob("*"))) == (True, before)
    found = cli("push", root, url, *options, "--json").json()["pruned"]
    assert found["states"] == trial["pruned"]["states"] == 2
    assert found["objects"] == trial["pruned"]["objects"] > 0
    assert cli("check", url).code == 0
    assert cli("push", root, url, *options, "--keep-days", 2).code == 0
    back = tmp_path / "back"
    assert cli("pull", url, back).code == 0
    assert cli("check", back, "--full").code == 0


def test_a_damaged_store_prunes_nothing(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    """The old state has whole what is damaged now."""
    url = f"file://{tmp_path}/remote"
    cli("import", source, root)
    cli("push", root, url)
    flip(next((root / "packs").glob("*.zip")), 500)
    done = cli("push", root, url, "--reread", "--prune", "--keep-states", 1)
    assert (done.code, "nothing was pruned" in done.err) == (20, True)
    assert (tmp_path / "remote/state/000000000001").exists()


def test_a_trial_run_and_a_limit(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    cli("import", source, root)
    done = cli("push", root, url, "--dry-run", "--prune")
    assert done.out.startswith(f"{url} would have all 3 files; ")
    assert "would be removed" in done.out
    assert not (tmp_path / "remote").exists()
    assert cli("push", root, url, "--bandwidth", "100M").code == 0
    assert cli("push", root, url, "--bandwidth", "0").code == 2
    assert cli("push", root, url, "--keep-states", "3").code == 2
    assert cli("push", root, url, "--prune", "--keep-states", "0").code == 2
