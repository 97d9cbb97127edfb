"""Who may open an encrypted URL: the first ring, recipients that come, and recipients that go.

Nothing that was sent is encrypted again. Whoever goes has had the master keys so far. So a new
master key is made when somebody goes, and a state under it at once: a push that began before loses
to that state, and readers refuse states under the old key from then on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from os import urandom
from pathlib import Path

from fsmount.errors import Damaged, PushOvertaken, RemoteConflict, RemoteRefused, UsageError
from fsmount.remote.encryption import age
from fsmount.remote.encryption.encrypted import EncryptedTransport
from fsmount.remote.encryption.key_objects import identity_name
from fsmount.remote.encryption.ring import RECIPIENT_NAME, MasterKey, Ring
from fsmount.remote.encryption.sealing import KEY_BYTES
from fsmount.remote.objects import last_state, state_name
from fsmount.remote.transport import Transport, where_of

_TRIES = 5


def put_ring(remote: Transport, ring: Ring) -> None:
    """Make the object of a ring.

    Raises :class:`RemoteConflict` if there is another one of its number, :class:`UsageError`,
    errors of the transport.
    """
    data = ring.encoded()
    # If an answer was lost, the second try finds what the first one made.
    if not remote.put(ring.name, data) and remote.get(ring.name) != data:
        why = "another command changed the keys at the same time. Run this one again"
        raise RemoteConflict(where_of(remote, ring.name), reason=why)


def put_locked(remote: Transport, passphrase: str) -> str:
    """Put an identity that a passphrase opens. Return its recipient.

    Takes seconds. Raises errors of the transport.
    """
    secret, recipient = age.new_identity()
    remote.put(identity_name(recipient), age.locked(secret, passphrase))
    return recipient


def read(texts: Iterable[str]) -> list[str]:
    """Return recipients from their texts: public keys, or files with one in each line.

    Raises :class:`UsageError` and OSError.
    """
    found = []
    for text in texts:
        if text.startswith(("age1", "ssh-")):
            lines = [text]
        else:
            lines = Path(text).read_text(errors="replace").splitlines()
        found += [age.recipient(line) for line in lines if line.strip() and line[0] != "#"]
    return found


def one(text: str) -> str:
    """Return one recipient from a public key, or from a file with one.

    Raises :class:`UsageError` and OSError.
    """
    found = read([text])
    if len(found) != 1:
        raise UsageError(f"{text} holds {len(found)} public keys, and one is wanted")
    return found[0]


def checked_name(ring: Ring | None, name: str) -> str:
    """Return the name of a new recipient. Raises :class:`UsageError`."""
    if RECIPIENT_NAME.fullmatch(name) is None:
        form = "small letters, digits, - and _, up to 64 of them"
        raise UsageError(f"{name!r} is no name for a recipient: write {form}")
    if ring is not None and name in ring.recipients:
        raise UsageError(f"there is a recipient {name!r} already: choose another name")
    return name


def add(remote: Transport, ring: Ring, name: str, recipient: str) -> Ring:
    """Let somebody else open all that is there. Return the new ring.

    Raises :class:`UsageError`, :class:`RemoteConflict`, errors of the transport.
    """
    recipients = ring.recipients | {checked_name(ring, name): age.recipient(recipient)}
    made = ring.after(ring.keys, recipients)
    put_ring(remote, made)
    return made


def remove(remote: EncryptedTransport, below: Transport, name: str) -> Ring:
    """Let a recipient open nothing that is sent from now on. Return the new ring.

    `below` is the transport without encryption. Raises :class:`UsageError`,
    :class:`RemoteConflict`, :class:`PushOvertaken`, :class:`Damaged`, errors of the transport.
    """
    ring = remote.ring
    if name not in ring.recipients:
        raise UsageError(f"there is no recipient {name!r}: see fsmount key list")
    left = {other: key for other, key in ring.recipients.items() if other != name}
    if not left:
        raise UsageError("the last recipient cannot be removed: nobody could open what is there")
    made = rotate(remote, below, left)
    gone = ring.recipients[name]
    if gone not in left.values():
        # Whoever copied it can open older rings with it, and no newer one.
        with suppress(RemoteRefused):
            below.delete(identity_name(gone))
    return made


def rotate(
    remote: EncryptedTransport, below: Transport, recipients: dict[str, str] | None = None
) -> Ring:
    """Make a new master key for all that is sent from now on. Return the new ring.

    `recipients` may open it: by default those that may open the newest one. Raises
    :class:`PushOvertaken`, and else as :func:`remove`.
    """
    ring = remote.ring
    if recipients is None:
        recipients = ring.recipients
    key = urandom(KEY_BYTES)
    made = ring
    for _ in range(_TRIES):
        last = last_state(remote)
        since = 0 if last is None else last.generation
        made = made.after((*ring.keys, MasterKey(key, since)), recipients)
        put_ring(below, made)
        if last is None:
            return made
        # The same files once more, under the new key.
        again = replace(last, generation=last.generation + 1, time=int(time.time()))
        again.pusher = secrets.token_hex(16)
        name, data = state_name(again.generation), again.encoded()
        after = EncryptedTransport(below, made)
        if after.put(name, data) or _is(after, name, data):
            return made
        # A push under the old key was quicker. Its state counts, and the new key begins after it.
    raise PushOvertaken(remote.url)


def _is(remote: EncryptedTransport, name: str, data: bytes) -> bool:
    """Whether an object holds these bytes: the answer to its PUT was lost."""
    try:
        return remote.get(name) == data
    except Damaged:
        return False
