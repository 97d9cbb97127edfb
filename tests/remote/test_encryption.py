"""Encrypted URLs: nothing plain is there, nothing that was changed is taken, who may open it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
import trio

from fsmount.errors import (
    Damaged,
    FsmountError,
    KeyRefused,
    NotPushed,
    PushOvertaken,
    RemoteConflict,
    RemoteMissing,
    UsageError,
)
from fsmount.remote.encryption import age, recipients, seen
from fsmount.remote.encryption.encrypted import EncryptedTransport
from fsmount.remote.encryption.ring import Ring
from fsmount.remote.names import remote_names
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.opening import (
    FirstRecipients,
    Unlock,
    open_for_push,
    open_keys,
    open_remote,
    remembered,
)
from fsmount.remote.pull import pull
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.store import open_read_store
from tests.support.backups import MORE, WANTED, faults, fill_store, shown
from tests.support.remotes import (
    new_identity,
    opened_to_push,
    public_key,
    push_through,
    pushed,
    quickly_locked,
)
from tests.support.repacking import fill
from tests.support.trees import make_store

SECRET_NAME = b"the secret name of a picture.png"


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))


@pytest.fixture(name="key")
def identity_file(tmp_path: Path) -> Path:
    """The secret key of the first recipient."""
    return new_identity(tmp_path)[0]


def first_push(root: Path, url: str, key: Path) -> Transport:
    remote = opened_to_push(root, url, recipients=[public_key(key)])
    push_through(root, remote)
    return remote


def forget_notes() -> None:
    """As on another machine."""
    shutil.rmtree(os.environ["XDG_STATE_HOME"])


def files_of(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "remote").rglob("*") if path.is_file())


def test_there_and_back(filled: Path, url: str, key: Path, tmp_path: Path) -> None:
    first_push(filled, url, key)
    trio.run(fill, filled, MORE)
    remote = opened_to_push(filled, url, key)
    done = push_through(filled, remote)
    assert (done.generation, done.problems) == (2, [])
    assert push_through(filled, remote).sent_objects == 0
    remote = open_remote(url, Unlock(key))
    state = last_state(remote)
    assert state is not None
    assert damaged_parts(remote, state) == []
    pull(remote, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE
    assert faults(tmp_path / "back") == []
    with remote_names(remote) as store:
        found = {path for path, node in store.index.walk() if node.object_id}
        assert found == set(WANTED | MORE)


def test_ranges(filled: Path, url: str, key: Path) -> None:
    first_push(filled, url, key)
    remote = open_remote(url, Unlock(key))
    state = last_state(remote)
    assert state is not None
    for part in state.parts():
        whole = remote.get(part.name)
        assert remote.size(part.name) == part.length == len(whole)
        for start in (0, part.length // 2, part.length - 1):
            assert remote.get_range(part.name, start, 300) == whole[start : start + 300]


def test_nothing_plain_is_there(
    root: Path, place: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    small_limits: None,
) -> None:  # fmt: skip
    """No name, time, tag, hash, pixel or byte of a file; in no object, and in no name of one."""
    fill_store(root, monkeypatch)
    trio.run(fill, root, {b"secret folder/" + SECRET_NAME: b"a secret text of a file. " * 40})
    first_push(root, place, key)
    plain = open_remote(place, Unlock(key))
    state = last_state(plain)
    assert state is not None
    known = [
        b"secret", b"large", b"staged", b"more", b"PK\1\2\x14\x03", b"fsmount", b"sha256", b"IHDR",
        b"SQLite format 3", b"(\xb5/\xfd", b"RIFF", b"JXL", state.uuid.encode(), b"percent",
    ]  # fmt: skip
    known += [name for name in WANTED if len(name) > 3]
    for data in (*WANTED.values(), state.encoded(), *(plain.get(p.name) for p in state.parts())):
        digest = hashlib.sha256(data)
        known += [digest.digest(), digest.hexdigest().encode(), digest.hexdigest().upper().encode()]
        # Some runs of bytes of each file and object.
        known += [data[at : at + 12] for at in range(0, min(len(data), 20_000) - 12, 97)]
    for part in state.parts():
        known.append(part.sha256.encode())
    known.append(str(state.time).encode())
    known.append(key.read_bytes().split()[-1])
    wanted = re.compile(b"|".join(map(re.escape, {each for each in known if len(set(each)) > 2})))
    files = files_of(tmp_path)
    assert len(files) > 6
    for path in files:
        name = str(path.relative_to(tmp_path / "remote")).encode()
        assert wanted.search(name) is None, name
        assert wanted.search(path.read_bytes()) is None, name
    # The scan finds what is plain.
    pushed(root, f"{place}-plain")
    plain_files = [path for path in (tmp_path / "remote-plain").rglob("*") if path.is_file()]
    assert all(wanted.search(path.read_bytes() + path.name.encode()) for path in plain_files)


def test_each_object_with_a_flipped_bit_is_refused_by_name(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    remote = open_remote(place, Unlock(key))
    state = last_state(remote)
    assert state is not None
    wanted = [part.name for part in state.parts()] + ["state/000000000001"]
    there = {
        remote.names_there(name)[0]: name  # type: ignore[attr-defined]
        for name in wanted
    }
    for path in files_of(tmp_path):
        name = str(path.relative_to(tmp_path / "remote"))
        whole = path.read_bytes()
        # Header, name, nonce, content, tag, directory, end, and some more.
        places = {0, 5, 14, 18, 22, 26, 30, 34, 41, 46, 50, 58, 70, len(whole) // 2,
                  *range(len(whole) - 110, len(whole), 9), len(whole) - 1}  # fmt: skip
        for at in sorted(places):
            broken = bytearray(whole)
            broken[at] ^= 1 << at % 8
            path.write_bytes(broken)
            if name.startswith("keys/"):
                with pytest.raises(FsmountError, match=name):
                    open_remote(place, Unlock(key))
            else:
                with pytest.raises(Damaged, match=name):
                    remote.get(there[name])
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises((Damaged, KeyRefused), match=name):
                remote.get(there[name]) if name in there else open_remote(place, Unlock(key))
        path.write_bytes(whole)
    pull(open_remote(place, Unlock(key)), tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_damage_is_listed_and_sent_again(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    remote = open_remote(place, Unlock(key))
    state = last_state(remote)
    assert state is not None
    paths = [path for path in files_of(tmp_path) if path.parent.name not in ("keys", "state")]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    for path in paths[2:]:
        broken = bytearray(path.read_bytes())
        broken[60] ^= 1
        path.write_bytes(broken)
    found = [what for what, _ in damaged_parts(remote, state)]
    assert sorted(found) == [f"file://{path}" for path in paths]
    push_through(filled, opened_to_push(filled, place, key), reread=True)
    assert damaged_parts(open_remote(place, Unlock(key)), state) == []
    pull(open_remote(place, Unlock(key)), tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_objects_under_other_names_are_refused(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    """Also those of an older state, and those of the same store at another URL."""
    first_push(filled, place, key)
    trio.run(fill, filled, MORE)
    push_through(filled, opened_to_push(filled, place, key))
    other = f"{place}2"
    first_push(filled, other, key)
    remote = open_remote(place, Unlock(key))
    state = last_state(remote)
    assert state is not None
    first, second = tmp_path / "remote/state/000000000001", tmp_path / "remote/state/000000000002"
    whole = second.read_bytes()
    for wrong in (first, tmp_path / "remote2/state/000000000001"):
        shutil.copy(wrong, second)
        with pytest.raises(Damaged, match="state/000000000002"):
            last_state(open_remote(place, Unlock(key)))
    second.write_bytes(whole)
    paths = [path for path in files_of(tmp_path) if path.parent.name not in ("keys", "state")]
    moved = paths[0].read_bytes()
    # Both copies of a part of the same store have the same content, but other names and keys.
    found = [part for part in state.parts()
             if (tmp_path / "remote" / remote.names_there(part.name)[0])  # type: ignore[attr-defined]
             != paths[0]]  # fmt: skip
    for part in found:
        path = tmp_path / "remote" / remote.names_there(part.name)[0]  # type: ignore[attr-defined]
        whole = path.read_bytes()
        path.write_bytes(moved)
        with pytest.raises(Damaged, match=path.name):
            remote.get(part.name)
        with pytest.raises(Damaged, match=path.name):
            remote.get_range(part.name, 0, 10)
        path.write_bytes(whole)


def test_a_moved_chunk_is_refused(place: str) -> None:
    """With a right CRC-32 and a right directory: as a hostile server makes it."""
    below = transport_to(place)
    Path(place.removeprefix("file://")).parent.mkdir(exist_ok=True)
    remote = EncryptedTransport(below, Ring.new("store", {}))
    data = os.urandom(200_000)
    name = f"packs/{hashlib.sha256(data).hexdigest()}"
    remote.put(name, data)
    (there,) = remote.names_there(name)
    whole = below.get(there)
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        members = [(member, file.read(member)) for member in file.namelist()]
    swapped = bytearray(whole)
    stride = 46 + len(members[0][1])
    for at, (_, content) in ((0, members[1]), (1, members[0])):
        start = at * stride
        swapped[start + 14 : start + 18] = zlib.crc32(content).to_bytes(4, "little")
        swapped[start + 46 : start + stride] = content
    below.delete(there)
    below.put(there, bytes(swapped))
    for at in (0, 70_000):
        with pytest.raises(Damaged, match=there):
            remote.get_range(name, at, 100)
    assert remote.get_range(name, 140_000, 100) == data[140_000:140_100]


# -- who may open it


def test_the_wrong_key(filled: Path, place: str, key: Path, tmp_path: Path) -> None:
    first_push(filled, place, key)
    other, _ = new_identity(tmp_path, "other")
    with pytest.raises(KeyRefused, match=r"keys/000001\.age cannot be opened.*--identity"):
        open_remote(place, Unlock(other))
    with pytest.raises(KeyRefused, match="name the key of a recipient"):
        open_remote(place)
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises(UsageError, match="no secret key"):
        open_remote(place, Unlock(tmp_path / "nonsense"))


def test_a_removed_recipient_cannot_open_a_later_push(
    filled: Path, url: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, url, key)
    gone, text = new_identity(tmp_path, "gone")
    remote, below = open_keys(url, Unlock(key))
    recipients.add(below, remote.ring, "gone", text)
    pull(open_remote(url, Unlock(gone)), tmp_path / "early")
    theirs, _ = open_keys(url, Unlock(gone))
    remote, below = open_keys(url, Unlock(key))
    recipients.remove(remote, below, "gone")
    with pytest.raises(KeyRefused):
        open_remote(url, Unlock(gone))
    trio.run(fill, filled, MORE)
    done = push_through(filled, opened_to_push(filled, url, key))
    # Packs that were there are not sent again, nor encrypted again.
    assert done.sent_objects < 4
    # With all that they had: the master keys so far.
    sent = open_remote(url, Unlock(key))
    state = last_state(sent)
    assert state is not None
    assert state.generation == 3
    for generation in (2, 3):
        with pytest.raises(Damaged):
            theirs.get(f"state/{generation:012d}")
    opened = []
    for part in state.parts():
        try:
            theirs.get(part.name)
            opened.append(part)
        except RemoteMissing:
            (newest, *_) = sent.names_there(part.name)  # type: ignore[attr-defined]
            theirs._found[part.name] = newest
            with pytest.raises(Damaged):
                theirs.get(part.name)
    assert len(state.parts()) - len(opened) == done.sent_objects
    pull(sent, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


def test_who_is_removed_cannot_make_a_state(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    """They know the old master key, and may be able to write there."""
    first_push(filled, place, key)
    gone, text = new_identity(tmp_path, "gone")
    remote, below = open_keys(place, Unlock(key))
    recipients.add(below, remote.ring, "gone", text)
    theirs, _ = open_keys(place, Unlock(gone))
    remote, below = open_keys(place, Unlock(key))
    recipients.remove(remote, below, "gone")
    trio.run(fill, filled, MORE)
    theirs.put("state/000000000003", theirs.get("state/000000000001"))
    with pytest.raises(Damaged, match=r"state/000000000003.*given up"):
        last_state(open_remote(place, Unlock(key)))


def test_a_push_that_began_before_a_removal_loses(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    _, text = new_identity(tmp_path, "gone")
    remote, below = open_keys(place, Unlock(key))
    recipients.add(below, remote.ring, "gone", text)
    early = opened_to_push(filled, place, key)

    class Slow:
        """Somebody is removed before this push makes its state."""

        def __getattr__(self, name: str) -> object:
            return getattr(early, name)

        def put(self, name: str, data: bytes) -> bool:
            if name.startswith("state/"):
                recipients.remove(*open_keys(place, Unlock(key)), "gone")
            return early.put(name, data)

    trio.run(fill, filled, MORE)
    with pytest.raises(PushOvertaken, match="push again"):
        push_through(filled, Slow())  # type: ignore[arg-type]
    push_through(filled, opened_to_push(filled, place, key))
    pull(open_remote(place, Unlock(key)), tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


def test_a_push_that_is_quicker_than_a_removal_counts(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    _, text = new_identity(tmp_path, "gone")
    remote, below = open_keys(place, Unlock(key))
    recipients.add(below, remote.ring, "gone", text)
    early = opened_to_push(filled, place, key)
    remote, below = open_keys(place, Unlock(key))
    trio.run(fill, filled, MORE)
    rings = []

    class Quick:
        """A push under the old key is complete when the new keys are there."""

        url = below.url

        def __getattr__(self, name: str) -> object:
            return getattr(below, name)

        def put(self, name: str, data: bytes) -> bool:
            made = below.put(name, data)
            if name.startswith("keys/"):
                rings.append(name)
                if len(rings) == 1:
                    push_through(filled, early)
            return made

    recipients.remove(remote, Quick(), "gone")  # type: ignore[arg-type]
    assert len(rings) == 2
    sent = open_remote(place, Unlock(key))
    state = last_state(sent)
    assert state is not None
    assert state.generation == 3
    pull(sent, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


def test_the_last_recipient_stays(filled: Path, place: str, key: Path) -> None:
    first_push(filled, place, key)
    remote, below = open_keys(place, Unlock(key))
    with pytest.raises(UsageError, match="last recipient"):
        recipients.remove(remote, below, "1")
    with pytest.raises(UsageError, match="no recipient 'x'"):
        recipients.remove(remote, below, "x")
    with pytest.raises(UsageError, match="already"):
        recipients.add(below, remote.ring, "1", public_key(key))
    with pytest.raises(UsageError, match="small letters"):
        recipients.add(below, remote.ring, "A b", public_key(key))
    with pytest.raises(UsageError, match="no recipient"):
        recipients.add(below, remote.ring, "b", "age1nonsense")


def test_two_changes_of_the_keys_at_a_time(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    remote, below = open_keys(place, Unlock(key))
    recipients.add(below, remote.ring, "a", new_identity(tmp_path, "a")[1])
    with pytest.raises(RemoteConflict, match="at the same time"):
        recipients.add(below, remote.ring, "b", new_identity(tmp_path, "b")[1])
    assert set(open_keys(place, Unlock(tmp_path / "a"))[0].ring.recipients) == {"1", "a"}


def test_a_passphrase(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(age, "locked", quickly_locked)
    asked = []

    def passphrase(what: str) -> str:
        asked.append(what)
        return "correct horse"

    below = transport_to(place)
    with open_read_store(filled) as store:
        identity = store.index.identity()
    remote = open_for_push(below, identity, Unlock(), encrypt=FirstRecipients((), passphrase))
    push_through(filled, remote)
    assert asked == [place]
    forget_notes()
    pull(open_remote(place, Unlock(passphrase=passphrase)), tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED
    with pytest.raises(KeyRefused, match="the passphrase is wrong"):
        open_remote(place, Unlock(passphrase=lambda what: "wrong horse"))
    assert all(b"correct horse" not in path.read_bytes() for path in files_of(tmp_path))


def test_a_secret_key_that_a_passphrase_opens(filled: Path, place: str, key: Path) -> None:
    """As `age-keygen | age -p` makes one, also with --armor."""
    first_push(filled, place, key)
    locked = quickly_locked(key.read_text().split()[-1], "correct horse")
    armored = b"-----BEGIN AGE ENCRYPTED FILE-----\n%b-----END AGE ENCRYPTED FILE-----\n"
    asked: list[str] = []

    def passphrase(what: str) -> str:
        asked.append(what)
        return "correct horse"

    file = key.with_name("locked")
    encoded = base64.b64encode(locked)
    lines = b"".join(encoded[at : at + 64] + b"\n" for at in range(0, len(encoded), 64))
    for data in (locked, armored % lines):
        file.write_bytes(data)
        assert last_state(open_remote(place, Unlock(file, passphrase))) is not None
        with pytest.raises(KeyRefused, match="locked cannot be opened: the passphrase is wrong"):
            open_remote(place, Unlock(file, lambda what: "wrong horse"))
    assert asked == [str(file)] * 2


def test_a_key_of_ssh_with_a_passphrase_is_refused(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "correct horse", "-f"]
    subprocess.run([*command, tmp_path / "ssh"], check=True)
    remote, below = open_keys(place, Unlock(key))
    recipients.add(below, remote.ring, "ssh", recipients.one(f"{tmp_path}/ssh.pub"))
    with pytest.raises(UsageError, match="must be decrypted first"):
        open_remote(place, Unlock(tmp_path / "ssh"))


# -- what a server shows


def test_plain_and_encrypted_objects_do_not_mix(filled: Path, place: str, key: Path) -> None:
    first_push(filled, place, key)
    with open_read_store(filled) as store:
        identity = store.index.identity()
    with pytest.raises(RemoteConflict, match="Say --encrypt"):
        open_for_push(transport_to(place), identity, Unlock(key), encrypt=None)
    with pytest.raises(UsageError, match="fsmount key add"):
        opened_to_push(filled, place, key, [public_key(key)])
    plain = f"{place}-plain"
    pushed(filled, plain)
    with pytest.raises(RemoteConflict, match="not encrypted"):
        opened_to_push(filled, plain, recipients=[public_key(key)])
    with pytest.raises(RemoteConflict, match="not encrypted"):
        open_remote(plain, Unlock(key, is_demanded=True))
    open_remote(plain, Unlock(key))
    with pytest.raises(RemoteConflict, match="no keys"):
        open_keys(plain, Unlock(key))


def test_another_store_is_refused(
    filled: Path, place: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_push(filled, place, key)
    other = make_store(tmp_path / "other", monkeypatch)
    with pytest.raises(NotPushed, match="another store"):
        opened_to_push(other, place, key)


def test_a_server_that_hides_the_keys(filled: Path, place: str, key: Path, tmp_path: Path) -> None:
    first_push(filled, place, key)
    shutil.rmtree(tmp_path / "remote")
    with open_read_store(filled) as store:
        identity = store.index.identity()
    for encrypt in (None, FirstRecipients([public_key(key)])):
        with pytest.raises(RemoteConflict, match="lost, removed or withheld"):
            open_for_push(transport_to(place), identity, Unlock(key), encrypt=encrypt)
    with pytest.raises(RemoteConflict, match="fsmount key forget"):
        open_remote(place, Unlock(key))
    assert seen.forget(place)
    assert not seen.forget(place)
    first_push(filled, place, key)


def test_a_server_that_shows_older_keys(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    remote, below = open_keys(place, Unlock(key))
    ring = recipients.add(below, remote.ring, "b", new_identity(tmp_path, "b")[1])
    remembered(below, ring)
    (tmp_path / "remote/keys/000002.age").unlink()
    with pytest.raises(RemoteConflict, match="keys number 2 there, and the newest are number 1"):
        open_remote(place, Unlock(key))


def test_a_server_that_shows_keys_of_its_own(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    """It knows the public key, as it does of many ssh keys."""
    first_push(filled, place, key)
    with open_read_store(filled) as store:
        forged = Ring.new(store.index.identity(), {"1": public_key(key)})
    (tmp_path / "remote/keys/000001.age").write_bytes(forged.encoded())
    with pytest.raises(RemoteConflict, match="not those that this machine has seen"):
        open_remote(place, Unlock(key))
    with pytest.raises(RemoteConflict):
        opened_to_push(filled, place, key)


def test_a_server_that_shows_an_older_state(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    first_push(filled, place, key)
    trio.run(fill, filled, MORE)
    push_through(filled, opened_to_push(filled, place, key))
    (tmp_path / "remote/state/000000000002").unlink()
    with pytest.raises(RemoteConflict, match="ends with state 1, and this machine has seen state"):
        last_state(open_remote(place, Unlock(key)))
    with pytest.raises(RemoteConflict):
        push_through(filled, opened_to_push(filled, place, key))
    # Another machine cannot know.
    forget_notes()
    assert last_state(open_remote(place, Unlock(key))) is not None


def test_a_note_that_is_damaged(filled: Path, place: str, key: Path) -> None:
    first_push(filled, place, key)
    seen.note_path(place).write_text("{}x")
    with pytest.raises(Damaged, match="no note on a URL"):
        open_remote(place, Unlock(key))


def test_a_push_that_was_stopped_before_there_were_keys(
    filled: Path, place: str, key: Path, tmp_path: Path
) -> None:
    """It left an identity that a passphrase opens, and no ring."""
    (tmp_path / "remote/keys").mkdir(parents=True)
    (tmp_path / "remote/keys/0123456789abcdef.identity.age").write_bytes(b"x")
    assert not isinstance(open_remote(place), EncryptedTransport)
    first_push(filled, place, key)
    pull(open_remote(place, Unlock(key)), tmp_path / "back")
