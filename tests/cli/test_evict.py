"""`fsmount evict`: what it prints, its exit codes, and what other commands say afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.support.backups import WANTED, fill_store
from tests.support.evicting import packs_here


@pytest.fixture(name="url")
def pushed_store(
    cli: Cli,
    root: Path,
    tmp_path: Path,
    small_limits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The URL of a store with three packs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    fill_store(root, monkeypatch)
    url = f"file://{tmp_path}/remote"
    assert cli("push", root, url).code == 0
    return url


def test_there_and_back(cli: Cli, root: Path, url: str) -> None:
    trial = cli("evict", "--keep", "2K", root, url, "-n", "--json").json()
    assert (trial["packs"], trial["dry_run"], len(packs_here(root))) == (2, True, 3)
    done = cli("evict", "--keep", "2K", root, url, "--json").json()
    assert {**trial, "dry_run": False} == done
    assert (done["away_packs"], len(packs_here(root))) == (2, 1)
    again = cli("evict", "--keep", "2K", root, url)
    assert again.out.startswith("0 packs (0 bytes) are dropped here. Packs here: ")
    assert again.code == 0
    # The newest pack is never sealed: it stays.
    less = cli("evict", "--keep", "0", root, url)
    assert (less.code, "the newest packs stay here" in less.err) == (3, True)
    found = cli("evict", "--keep", "all", root, "--dry-run")
    assert (found.code, found.out.endswith("would come back\n")) == (0, True)
    assert cli("evict", "--keep", "all", root).out.endswith("came back; all packs are here\n")
    assert cli("evict", "--keep", "all", root, url).out == "all packs are here\n"
    assert len(packs_here(root)) == 3
    assert cli("check", root, "--full").code == 0


def test_what_was_not_pushed(cli: Cli, root: Path, url: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(9):
        (source / f"{number}").write_bytes(bytes([number]) * 1000 + bytes(range(256)) * 8)
    for path in sorted(source.iterdir()):
        assert cli("import", path, root).code == 0
    done = cli("evict", "--keep", "0", root, url)
    assert (done.code, "Push first" in done.err) == (3, True)


def test_commands_that_read(cli: Cli, root: Path, url: str, tmp_path: Path) -> None:
    before = cli("ls", "-R", root).out
    assert cli("evict", "--keep", "2K", root, url).code == 0
    assert cli("ls", "-R", root).out == before
    assert cli("stats", root).out.count(url) == 2
    found = cli("stats", root, "--json").json()["away"]
    assert (found["url"], found["packs"], found["bytes"] > 10_000) == (url, 2, True)
    out = tmp_path / "out"
    assert cli("export", root, out).code == 0
    files = {path.name.encode(): path.read_bytes() for path in out.iterdir()}
    assert files == WANTED
    assert cli("verify", f"{out}/", root).code == 0
    done = cli("check", root, "--full")
    assert (done.code, f"packs are at {url} only" in done.out) == (0, True)
    assert "2 packs are at" in done.err
    assert cli("check", root, "--full", "--json").json()["elsewhere"] > 5
    assert cli("push", root, url, "--prune", "--keep-states", 1).code == 0
    assert cli("trash", "list", root).code == 0
    assert cli("policy", "set", root, "--keep-last", 3).code == 0
    assert cli("policy", "clear", root).code == 0
    assert cli("check", url).code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("check", "STORE", "--repair"),
        ("repack", "STORE"),
        ("repack", "STORE", "--dry-run"),
        ("prune", "STORE", "--keep-last", "1", "--yes"),
        ("prune", "STORE", "--keep-last", "1", "--dry-run"),
        ("import", "OTHER", "STORE"),
        ("backup", "STORE", "OTHER/backup"),
        ("copy", "STORE", "OTHER/store"),
        ("text", "STORE"),
        ("stats", "STORE", "--new"),
        ("push", "STORE", "file://OTHER/remote"),
    ],
)
def test_commands_that_need_all_packs(
    cli: Cli, root: Path, url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if command[0] == "copy":
        assert cli("init", other / "store").code == 0
    assert cli("evict", "--keep", "2K", root, url).code == 0
    about = (root / "elsewhere.json").read_bytes()
    words = [word.replace("STORE", str(root)).replace("OTHER", str(other)) for word in command]
    done = cli(*words)
    assert done.code == 1
    assert "fsmount evict --keep all" in done.sentence()
    assert (root / "elsewhere.json").read_bytes() == about
    assert len(packs_here(root)) == 1
    assert cli("evict", "--keep", "all", root).code == 0


def test_a_lost_record(cli: Cli, root: Path, url: str) -> None:
    assert cli("evict", "--keep", "2K", root, url).code == 0
    (root / "elsewhere.json").unlink()
    done = cli("check", root, "--repair")
    assert (done.code, "evict --keep all STORE URL" in done.sentence()) == (20, True)
    done = cli("evict", "--keep", "all", root, url)
    assert (done.code, "made anew" in done.err) == (0, True)
    assert len(packs_here(root)) == 3
    assert cli("check", root, "--full").code == 0


def test_refusals(cli: Cli, root: Path, url: str, tmp_path: Path) -> None:
    assert cli("evict", root, url).code == 2
    assert cli("evict", "--keep", "1G", root).code == 2
    assert cli("evict", "--keep", "much", root, url).code == 2
    assert cli("evict", "--keep", "1G", root, url, url).code == 2
    assert cli("evict", "--keep", "0", root, f"file://{tmp_path}/empty").code == 10
    assert cli("evict", "--keep", "0", tmp_path, url).code == 10
    assert len(packs_here(root)) == 3
