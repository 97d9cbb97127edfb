"""All files come back from an encrypted folder without fsmount: by age, and two scripts."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.remote.encryption import age, recipients
from fsmount.remote.opening import Unlock, open_keys
from tests.e2e.unpacking import make, others, screens
from tests.support.paths import CHECKOUT
from tests.support.remotes import opened_to_push, push_through

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("age", "age-keygen", "ssh-keygen", "zstd"))),
    reason="needs age, ssh-keygen and zstd",
)
FILES = screens() | others()


def script() -> str:
    """The commands of docs/remote-format.md."""
    page = (CHECKOUT / "docs/remote-format.md").read_text()
    (found,) = re.findall(r"^```sh\n(bucket=.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(name="url")
def pushed_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store that the key of age in `identity` opens."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))
    root, _ = make(tmp_path / "store", FILES)
    url = f"file://{tmp_path}/bucket"
    subprocess.run(["age-keygen", "-o", tmp_path / "identity"], check=True, capture_output=True)
    done = subprocess.run(
        ["age-keygen", "-y", tmp_path / "identity"], check=True, capture_output=True, text=True
    )
    push_through(root, opened_to_push(root, url, recipients=[done.stdout.strip()]))
    return url


def test_all_comes_back(url: str, tmp_path: Path) -> None:
    remote, below = open_keys(url, Unlock(tmp_path / "identity"))
    # Objects under two master keys.
    recipients.add(below, remote.ring, "gone", age.new_identity()[1])
    recipients.remove(*open_keys(url, Unlock(tmp_path / "identity")), "gone")
    text = script().replace("FOLDER", f"{tmp_path}/bucket", 1)
    text = text.replace("FILE", f"{tmp_path}/identity", 1).replace(
        "contrib/", f"{CHECKOUT}/contrib/"
    )
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": tools, "HOME": str(tmp_path)}
    (tmp_path / "work").mkdir()
    subprocess.run(
        ["bash", "-euc", text], check=True, cwd=tmp_path / "work", env=environment, timeout=300
    )
    dest = tmp_path / "work/files"
    found = {os.fsencode(path.relative_to(dest)): path.read_bytes()
             for path in dest.rglob("*") if path.is_file()}  # fmt: skip
    assert FILES.items() <= found.items()


def test_age_opens_the_keys_with_a_key_of_ssh(url: str, tmp_path: Path) -> None:
    remote, below = open_keys(url, Unlock(tmp_path / "identity"))
    for kind in ("ed25519", "rsa"):
        key = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
        public = recipients.one(f"{key}.pub")
        ring = recipients.add(below, remote.ring, kind, public)
        remote, _ = open_keys(url, Unlock(key))
        assert remote.ring == ring
        file = tmp_path / "bucket" / ring.name
        done = subprocess.run(["age", "-d", "-i", key, file], check=True, capture_output=True)
        assert remote.ring.keys[0].key.hex().encode() in done.stdout


def test_age_opens_the_keys_with_a_passphrase(url: str, tmp_path: Path) -> None:
    remote, below = open_keys(url, Unlock(tmp_path / "identity"))
    public = recipients.put_locked(below, "correct horse")
    ring = recipients.add(below, remote.ring, "safe", public)
    (identity,) = (tmp_path / "bucket/keys").glob("*.identity.age")
    out = tmp_path / "keys.json"
    command = ["age", "-d", "-o", str(out), "-i", str(identity), f"{tmp_path}/bucket/{ring.name}"]
    pid, terminal = pty.fork()
    if not pid:
        os.execvp("age", command)
    said = b""
    # age asks at the terminal.
    while b":" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, b"correct horse\n")
    while True:
        try:
            if not os.read(terminal, 1000):
                break
        except OSError:
            break
    os.waitpid(pid, 0)
    os.close(terminal)
    assert ring.keys[0].key.hex() in out.read_text()
