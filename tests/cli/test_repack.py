"""`fsmount repack`: what it says before and after, and that a dry run changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsmount.store.index import ROOT
from fsmount.store.store import open_store
from tests.cli.commands import Cli


@pytest.fixture(name="filled")
def a_filled_store(cli: Cli, root: Path, source: Path) -> Path:
    """Make a store with pictures and notes, and delete two notes."""
    for number in range(3):
        (source / f"note{number}").write_bytes(os.urandom(50_000))
    assert cli("import", f"{source}/", root).code == 0
    with open_store(root) as store:
        for name in (b"note0", b"note1"):
            store.index.purge(store.index.unlink(ROOT, name, 1).ino)
    return root


def state(root: Path) -> dict[Path, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-shm", "-wal"))}


def total(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("option", ["-n", "--dry-run"])
def test_a_dry_run_changes_nothing(cli: Cli, filled: Path, option: str) -> None:
    before = state(filled)
    done = cli("repack", option, filled)
    assert (done.code, done.err) == (0, "")
    examined, certain, again, needs, nothing = done.out.splitlines()
    assert examined.startswith("to examine: 4 objects in 1 pack of ")
    assert certain.startswith("comes back for certain: 100.")
    assert "an estimate from 3 of 3 pictures" in again
    assert needs.startswith("needs about ")
    assert nothing == "nothing was changed"
    said = cli("repack", option, filled, "--json").json()
    assert said["dry_run"]
    assert (said["packs"], said["objects"], said["pictures"]) == (1, 4, 3)
    assert 100_000 < said["dead_bytes"] < 101_000
    assert 0 < said["space_bytes"] < said["bytes"]
    assert state(filled) == before
    assert cli("repack", option, filled, "--quiet").out == ""


def test_what_is_said_before_is_what_happens(cli: Cli, filled: Path) -> None:
    before = total(filled)
    found = cli("repack", filled, "--json").json()
    said = found["expected"]
    assert found["bytes_before"] - found["bytes_after"] >= said["dead_bytes"] + said["saved_bytes"]
    assert total(filled) < before
    assert found["moved"] == said["objects"]
    # As `stats` says, and no file of SQLite is left that was not there.
    assert [path.name for path in filled.glob("index.sqlite-*")] == []
    assert cli("stats", filled, "--json").json()["stored_bytes"] == found["bytes_after"]
    assert cli("verify", "--help").code == 0


def test_words(cli: Cli, filled: Path) -> None:
    lines = cli("repack", filled).out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "to examine",
        "comes back for certain",
        "encoding again",
    ]
    assert " before, " in lines[-1]
    after = total(filled)
    assert cli("repack", filled).out.splitlines()[0] == "there is nothing to repack"
    assert cli("repack", "-n", filled).out.splitlines()[0] == "there is nothing to repack"
    assert total(filled) - after in (0, 32768), "at most the shared memory of SQLite is new"


def test_a_quiet_repack_makes_no_forecast(
    cli: Cli, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.cli.repack.forecast", None)
    done = cli("repack", "-q", filled)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_no_store(cli: Cli, tmp_path: Path) -> None:
    for options in ([], ["-n"]):
        done = cli("repack", *options, tmp_path)
        assert done.code == 10
        assert "is not an fsmount store" in done.err
