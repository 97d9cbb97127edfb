"""Errors that a command reports in one sentence."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from fsmount.store.ingest.encoder import Encoder
from fsmount.store.lock import Lock
from fsmount.store.writable_store import WritableStore
from tests.cli.commands import Cli, process

FUTURE = b'{"format": 99, "uuid": "x"}'


def each(root: Path, source: Path, tmp_path: Path) -> dict[str, list[object]]:
    """Command name -> plain arguments, for every command that needs a store and no mount."""
    return {
        "import": [source, root],
        "export": [root, tmp_path / "out"],
        "verify": [source, root],
        "ls": [root],
        "cat": [root, "in/00.png"],
        "stats": [root],
        "check": [root],
        "backup": [root, tmp_path / "backup"],
    }


USES = ["import", "export", "verify", "ls", "cat", "stats", "check", "backup"]


@pytest.mark.parametrize("what", ["nothing", "folder", "file"])
@pytest.mark.parametrize("name", [*USES, "mount"])
def test_no_store(cli: Cli, source: Path, tmp_path: Path, name: str, what: str) -> None:
    place = tmp_path / "place"
    if what == "folder":
        place.mkdir()
    if what == "file":
        place.touch()
    uses = each(place, source, tmp_path)
    uses["mount"] = [place, tmp_path]
    done = cli(name, *uses[name])
    assert done.code == 10
    assert (
        done.sentence() == f"{place} is not an fsmount store. Make one with: fsmount init {place}"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [*USES, "mount"])
def test_a_format_of_the_future(
    cli: Cli, root: Path, source: Path, tmp_path: Path, name: str
) -> None:
    (root / "fsmount.json").write_bytes(FUTURE)
    uses = each(root, source, tmp_path)
    uses["mount"] = [root, source]
    done = cli(name, *uses[name])
    assert done.code == 30
    assert "is a store of format 99" in done.sentence()


@pytest.mark.parametrize("how", ["pages", "first page", "cut", "empty", "text", "missing"])
@pytest.mark.parametrize("name", USES)
def test_a_damaged_index(
    cli: Cli, root: Path, source: Path, tmp_path: Path, name: str, how: str
) -> None:
    (source / "more").write_text("to import")
    index = root / "index.sqlite"
    data = bytearray(index.read_bytes())
    if how == "pages":
        for page in range(1, len(data) // 4096):
            data[page * 4096 + 4000] ^= 1
    if how == "first page":
        data[200] ^= 1
    if how == "cut":
        del data[5000:]
    if how == "text":
        data = bytearray(b"not a database, but long enough to be looked at " * 200)
    index.unlink() if how == "missing" else index.write_bytes(b"" if how == "empty" else data)
    done = cli(name, *each(root, source, tmp_path)[name])
    assert done.code == 20, done
    assert "index.sqlite" in done.err
    assert "damage" in done.err or name == "check"
    assert sorted(source.iterdir())[-1].read_text() == "to import"


def test_locked(root: Path, source: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from fsmount.store.lock import Lock\n"
            "lock = Lock(Path(sys.argv[1])); print(flush=True); sys.stdin.read()",
            root / "lock",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = process("import", source, root)
        assert done.code == 11
        assert f"in use by another fsmount process (process {holder.pid})" in done.sentence()
        for name in ("ls", "stats", "check", "export"):
            assert process(name, *each(root, source, tmp_path)[name]).code == 0
        assert process("verify", source, root).code == 1
    assert process("import", source, root).code == 0


def _elsewhere(root: Path) -> bytes:
    """Write a lock file as another host leaves it when it does not close the store."""
    lock = Lock(root / "lock")
    line = (root / "lock").read_bytes()
    lock.release()
    for key in (b'"host": "', b'"boot": "'):
        line = line.replace(key, key + b"other-")
    (root / "lock").write_bytes(line)
    return line


@pytest.mark.parametrize("name", ["import", "repack", "check", "mount"])
def test_locked_by_another_host(
    cli: Cli, root: Path, source: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.mount.session.check_fuse", lambda options: None)
    monkeypatch.setattr("fsmount.store.lock._sleep", lambda seconds: None)
    monkeypatch.setenv("FSMOUNT_LOG", str(tmp_path / "log"))
    place = tmp_path / "place"
    place.mkdir()
    arguments: dict[str, list[object]] = {
        "import": [source, root],
        "repack": [root],
        "check": [root, "--repair"],
        "mount": ["-f", root, place],
    }
    line = _elsewhere(root)
    done = cli(name, *arguments[name])
    assert done.code == 11
    told = done.sentence()
    assert f"on other-{socket.gethostname()}, last alive at 20" in told
    assert "--force-lock" in told
    assert (root / "lock").read_bytes() == line
    if name == "mount":
        # Without a kernel mount the command fails here, after it took the lock.
        def refuse(*_: object) -> None:
            raise RuntimeError("no")

        monkeypatch.setattr("pyfuse3.init", refuse)
        assert cli(name, "--force-lock", *arguments[name]).code == 13
    else:
        assert cli(name, "--force-lock", *arguments[name]).code == 0
    assert (root / "lock").read_bytes() == b""


def test_force_where_no_lock_is_taken(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("check", "--force-lock", root).code == 2
    assert cli("mount", "--force-lock", "-o", "ro", root, tmp_path).code == 2


def test_mountpoints_that_cannot_be_used(
    cli: Cli, root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.mount.session.check_fuse", lambda options: None)
    for place, why in (
        (tmp_path / "nothing", "there is no such folder; fsmount mount -p makes it"),
        (source, "it is not empty; its files would be hidden"),
        (source / "00.png", "it is not a folder"),
        (root / "packs", "it lies inside the store"),
    ):
        done = cli("mount", root, place)
        assert (done.code, done.sentence()) == (12, f"{place}: {why}")
    for place in (source, tmp_path / "nothing"):
        done = cli("umount", place)
        assert (done.code, done.sentence()) == (12, f"{place}: nothing is mounted there")


def test_sources_that_are_not_there(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    for name in ("import", "verify"):
        done = cli(name, source, tmp_path / "nothing", root)
        assert done.code == 1
        assert done.sentence() == f"{tmp_path / 'nothing'}: No such file or directory"
    assert cli("stats", root, "--json").json()["files"] == 0


def test_the_store_and_other_files_are_apart(
    cli: Cli, root: Path, source: Path, tmp_path: Path
) -> None:
    for arguments in (
        ["import", tmp_path, root],
        ["import", f"{root}/packs", root],
        ["import", root, root],
        ["export", root, root / "out"],
        ["export", root, root],
    ):
        done = cli(*arguments)
        assert done.code == 2
        assert "must be apart" in done.sentence()
    assert cli("export", root, tmp_path).code == 0


def test_export_to_what_is_no_folder(cli: Cli, root: Path, source: Path) -> None:
    done = cli("export", root, source / "00.png")
    assert done.code == 1
    assert done.sentence() == f"{source / '00.png'}: File exists"
    cli("import", source, root)
    missing = cli("export", root, source.parent / "out", "in/00.png", "in/99.png")
    assert missing.code == 1
    assert "there is no 'in/99.png' in" in missing.sentence()
    assert not (source.parent / "out").exists()


def test_a_source_through_a_link(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert cli("import", f"{tmp_path}/link/", root, "--json").json()["files"] == 3
    assert cli("verify", f"{tmp_path}/link/", root).out == "3/3 identical\n"


def test_files_that_stay_staged(
    cli: Cli, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file with several names is staged; the encoder reads other files where they lie.
    for path in list(source.iterdir()):
        path.with_name(f"other {path.name}").hardlink_to(path)

    async def give_up(store: WritableStore) -> None:
        return

    async def rest(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(WritableStore, "drain", give_up)
    monkeypatch.setattr(Encoder, "run", rest)
    done = cli("import", source, root)
    assert done.code == 1
    assert "could not be encoded" in done.err
    assert "run the import again" in done.err
