"""`fsmount backup`: what it prints, its exit codes, and what is said of a plain copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from fsmount.store.lock import Lock
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.backup import _Backup, back_up, size_of
from tests.cli.commands import Cli
from tests.repairing import repair
from tests.store.test_formats import FORMATS, STORES, sums, wanted
from tests.support.backups import faults, shown
from tests.support.encoding import put
from tests.support.packs import flip
from tests.support.repacking import fill, pictures


def test_a_backup_and_the_next(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    dest = tmp_path / "b"
    done = cli("backup", root, dest, "--json").json()
    assert (done["files"], done["packs"], done["problems"]) == (3, 1, [])
    assert done["copied_bytes"] > 1000
    assert cli("backup", root, dest).out == f"{dest} has all 3 files; 0 bytes copied\n"
    assert cli("backup", root, dest, "-q").out == ""
    assert cli("verify", source, dest).out == "3/3 identical\n"
    assert cli("check", dest, "--full").code == 0


def test_problems(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    cli("import", source, root)
    pack = root / "packs" / "00000001.zip"
    flip(pack, 500)
    done = cli("backup", root, tmp_path / "b")
    assert done.code == 20
    assert done.out.startswith(f"{tmp_path / 'b'} has all 3 files; ")
    assert f"  {pack}: object 1 is damaged" in done.err
    assert cli("backup", root, tmp_path / "b", "--reread", "--json").code == 20


def test_refusals(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("backup", root).code == 2
    assert cli("backup", root, tmp_path / "b", tmp_path / "c").code == 2
    done = cli("backup", root, root / "inside")
    assert (done.code, "inside the store" in done.sentence()) == (2, True)
    assert not (root / "inside").exists()
    assert "Choose another folder" in cli("backup", root, root).sentence()
    (tmp_path / "b").mkdir()
    lock = Lock(tmp_path / "b" / "lock")
    assert cli("backup", root, tmp_path / "b").code == 11
    lock.release()


def test_a_lock_of_another_machine(
    cli: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup was killed on another machine, to which the disk belonged then."""
    dest = tmp_path / "b"
    cli("backup", root, dest)
    lock = Lock(dest / "lock")
    line = (dest / "lock").read_text()
    lock.release()
    boot = line.partition('"boot": "')[2].partition('"')[0]
    (dest / "lock").write_text(line.replace(boot, "another").replace('"host": "', '"host": "x'))
    done = cli("backup", root, dest)
    assert (done.code, "--force-lock" in done.sentence()) == (11, True)
    monkeypatch.setattr("fsmount.store.lock._sleep", lambda seconds: None)
    assert cli("backup", root, dest, "--force-lock").code == 0


@pytest.mark.parametrize("name", FORMATS)
def test_stores_of_all_formats(cli: Cli, tmp_path: Path, name: str) -> None:
    store = Path(shutil.copytree(STORES / name, tmp_path / name))
    before = sums(store)
    assert cli("backup", store, tmp_path / "b").code == 0
    assert sums(store) == before
    assert (tmp_path / "b" / "fsmount.json").read_bytes() == (store / "fsmount.json").read_bytes()
    assert cli("check", "--full", tmp_path / "b").code == 0
    assert cli("export", tmp_path / "b", tmp_path / "out").code == 0
    assert sums(tmp_path / "out") == wanted(store)
    # The store is written, and gets the newest format; so does its backup.
    (tmp_path / "new").write_bytes(b"new")
    cli("import", tmp_path / "new", store)
    assert cli("backup", store, tmp_path / "b").code == 0
    assert (tmp_path / "b" / "fsmount.json").read_bytes() == (store / "fsmount.json").read_bytes()
    assert shown(tmp_path / "b")[b"new"] == b"new"


# -- a copy by another program


def test_a_plain_copy_of_a_store_in_use(cli: Cli, root: Path, tmp_path: Path) -> None:
    """What rsync gets if SQLite folds the log into the index between the copies of the two.

    The index in the copy is of no moment at all: old pages, and a log of later ones. `check` says
    so. The entries are whole, so a repair finds all pictures that were encoded at the beginning.
    """
    old = pictures(3)
    trio.run(fill, root, old)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(root / "index.sqlite", copy)
    new = {b"%d" % number: b"text %d" % number for number in range(60)}
    # This ends with a new, empty log.
    trio.run(fill, root, new)
    with open_store(root) as store:
        for number in range(60, 70):
            put(store, b"%d" % number, b"staged")
        for path in sorted(root.iterdir()):
            if path.name not in ("index.sqlite", "index.sqlite-shm", "lock"):
                (shutil.copytree if path.is_dir() else shutil.copy)(path, copy / path.name)
    assert cli("check", copy).code == 20
    trio.run(repair, copy)
    # Staged files without a row are left, because they may be the only copies.
    assert {what.partition("/")[0] for what, _ in faults(copy)} <= {"staging"}
    assert {**old, **new}.items() <= shown(copy).items()


def test_progress_and_an_interruption(
    root: Path, source: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("import", source, root)
    steps: list[tuple[int, int]] = []
    with open_read_store(root) as store:
        back_up(store, tmp_path / "a", progress=lambda *step: steps.append(step))
        total = size_of(store)
    assert sum(files for files, _ in steps) == 1
    # The pack has its directory at the end, which is not copied while the pack is open.
    assert 0 <= total - sum(count for _, count in steps) < 1000

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Backup, "_switch", interrupted)
    done = cli("backup", root, tmp_path / "b")
    assert done.code == 130
    assert done.err.startswith("fsmount: stopped after 1 packs and files. DEST still shows")
