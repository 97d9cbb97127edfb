"""`fsmount push --encrypt` and `fsmount key`: what they print, their exit codes, passphrases."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import Cli, process
from tests.support.remotes import new_identity


@pytest.fixture(name="url")
def remote_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))
    for name in ("FSMOUNT_IDENTITY", "FSMOUNT_PASSCOMMAND"):
        monkeypatch.delenv(name, raising=False)
    return f"file://{tmp_path}/remote"


def test_keys(cli: Cli, root: Path, source: Path, tmp_path: Path, url: str) -> None:
    cli("import", source, root)
    identity, public = new_identity(tmp_path)
    other, other_public = new_identity(tmp_path, "other")
    opens = ("--identity", identity)
    done = cli("push", root, url, "--encrypt", "--recipient", public)
    assert done.out.startswith(f"{url} has all 3 files; ")
    assert cli("push", root, url, "--encrypt", *opens).out.endswith("; 0 bytes sent\n")
    assert cli("ls", "-R", url, *opens).out == cli("ls", "-R", root).out
    assert cli("check", url, *opens).out.endswith("read and compared: no damage found\n")
    (tmp_path / "other.pub").write_text(f"# a comment\n{other_public}\n")
    done = cli("key", "add", url, "desk", "--recipient", tmp_path / "other.pub", *opens)
    assert done.out == f"desk can open {url}\n"
    assert cli("pull", url, tmp_path / "back", "--identity", other).code == 0
    assert cli("verify", source, tmp_path / "back").out == "3/3 identical\n"
    found = cli("key", "list", url, "--json", *opens).json()
    assert found["recipients"] == {"1": public, "desk": other_public}
    assert (found["ring"], found["master_keys"]) == (2, 1)
    assert cli("key", "remove", url, "desk", *opens).code == 0
    assert cli("key", "list", url, *opens).out == f"1                {public}\n" + (
        "2 master keys; keys/000003.age\n"
    )
    assert "cannot be opened" in cli("ls", url, "--identity", other).sentence()
    assert "last recipient" in cli("key", "remove", url, "1", *opens).sentence()
    assert cli("key", "rotate", url, *opens, "--json").json()["master_keys"] == 3
    assert cli("push", root, url, "--encrypt", *opens).code == 0
    assert cli("key", "forget", url).out.endswith(".json: removed\n")
    assert cli("key", "forget", url).out.endswith(".json: not there\n")


def test_refusals(
    cli: Cli, root: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity, public = new_identity(tmp_path)
    assert "needs --encrypt" in cli("push", root, url, "--recipient", public).sentence()
    done = cli("push", root, url, "--encrypt", "--recipient", "age1nonsense")
    assert (done.code, "is no recipient" in done.sentence()) == (2, True)
    assert cli("push", root, url, "--encrypt", "--recipient", tmp_path / "none").code == 1
    # Nobody can type here.
    assert "FSMOUNT_PASSCOMMAND" in cli("push", root, url, "--encrypt").sentence()
    assert not (tmp_path / "remote").exists()
    cli("push", root, url, "--encrypt", "--recipient", public)
    done = cli("push", root, url)
    assert (done.code, "Say --encrypt" in done.sentence()) == (1, True)
    assert "FSMOUNT_IDENTITY" in cli("ls", url).sentence()
    monkeypatch.setenv("FSMOUNT_IDENTITY", str(identity))
    assert cli("ls", url).code == 0
    plain = f"{url}-plain"
    cli("push", root, plain)
    assert cli("ls", plain).code == 0
    # Whoever names a key expects an encrypted URL.
    assert "not encrypted" in cli("ls", plain, "--identity", identity).sentence()
    assert "not encrypted" in cli("push", root, plain, "--encrypt").sentence()
    assert "no keys" in cli("key", "list", plain).sentence()
    done = cli("key", "add", url, "x", "--recipient", public, "--new-passphrase-file", identity)
    assert done.code == 2
    assert "small letters" in cli("key", "add", url, "X y", "--recipient", public).sentence()


def test_passphrases(root: Path, tmp_path: Path, url: str) -> None:
    """As processes: nothing of a passphrase is in an argument or in what is printed."""
    (tmp_path / "pass").write_text("correct horse\n")
    command = f"cat '{tmp_path}/pass'"
    done = process("push", root, url, "--encrypt", FSMOUNT_PASSCOMMAND=command)
    assert (done.code, done.err) == (0, "")
    done = process("ls", url, "--passphrase-file", tmp_path / "pass")
    assert (done.code, done.err) == (0, "")
    # A command that fails costs no time.
    for wrong in ("false", "/no/such/program", "'", "true"):
        done = process("ls", url, FSMOUNT_PASSCOMMAND=wrong)
        assert done.code in (1, 2)
        assert "FSMOUNT_PASSCOMMAND" in done.sentence()
        assert "horse" not in done.err
    found = subprocess.check_output(["grep", "-rl", "horse", tmp_path], text=True)
    assert found == f"{tmp_path}/pass\n"
