"""Open a URL, for reading or for a push: whether it is encrypted is seen there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fsmount.errors import KeyRefused, NotPushed, RemoteConflict, UsageError
from fsmount.remote.encryption.key_objects import KeyObjects, key_objects
from fsmount.remote.encryption.seen import Seen, agrees, note, seen_at
from fsmount.remote.objects import FOLDERS, STATES
from fsmount.remote.transport import Patience, Transport, transport_to

if TYPE_CHECKING:
    # Encryption is an extra, and takes long to load.
    from fsmount.remote.encryption.encrypted import EncryptedTransport
    from fsmount.remote.encryption.ring import Ring

_FORGET = "To accept that: fsmount key forget URL"


class NotEncrypted(RemoteConflict):
    """A URL was to be opened by a key, and has none. `remote` is the transport to it."""

    message = "{detail}: it is not encrypted, so no key or passphrase opens it."
    remote: Transport | None = None


def _no_passphrase(what: str) -> str:
    raise KeyRefused(what, reason="there is no passphrase")


@dataclass(frozen=True)
class Unlock:
    """What opens an encrypted URL.

    identity : a file with a secret key of age or ssh.
    passphrase : returns the passphrase for what it is told; may raise :class:`KeyRefused`.
    is_demanded : whether a URL that is not encrypted is refused.
    """

    identity: Path | None = None
    passphrase: Callable[[str], str] = _no_passphrase
    is_demanded: bool = False


@dataclass(frozen=True)
class FirstRecipients:
    """Who may open a URL that is to be encrypted.

    recipients : public keys, or files with some.
    passphrase : if there are none, returns a new passphrase.
    """

    recipients: Sequence[str] = ()
    passphrase: Callable[[str], str] = _no_passphrase


def open_remote(
    url: str, unlock: Unlock | None = None, patience: Patience | None = None
) -> Transport:
    """Return the transport to what was pushed to a URL; `patience` as for :func:`transport_to`.

    If it is encrypted, the transport decrypts. Lists the keys there, and reads them.

    Raises :class:`KeyRefused` if it cannot be opened, :class:`NotEncrypted` if `unlock` demands
    that it is, :class:`RemoteConflict` if it is not what this machine has seen there,
    :class:`UsageError`, :class:`RemoteNeedsExtra`, errors of the transport, OSError.
    """
    unlock = unlock or Unlock()
    remote = transport_to(url, patience)
    encrypted = _open_encrypted(remote, unlock)
    if encrypted is None and unlock.is_demanded:
        error = NotEncrypted(url)
        error.remote = remote
        raise error
    return encrypted or remote


def open_keys(url: str, unlock: Unlock) -> tuple[EncryptedTransport, Transport]:
    """Return the transport to an encrypted URL, and the one below it.

    Raises :class:`RemoteConflict` if it is not encrypted, and else as :func:`open_remote`.
    """
    remote = transport_to(url)
    encrypted = _open_encrypted(remote, unlock)
    if encrypted is None:
        raise RemoteConflict(url, reason="it is not encrypted, so it has no keys")
    return encrypted, remote


def open_for_push(
    remote: Transport,
    store: str,
    unlock: Unlock,
    *,
    encrypt: FirstRecipients | None,
    dry_run: bool = False,
) -> Transport:
    """Return the transport for a push of the store with this identity.

    `remote` is what :func:`transport_to` returned. `encrypt` says that what is sent is encrypted,
    and who may open it, if nobody has said so before. What is there must agree. A dry run makes no
    keys.

    Raises :class:`NotPushed` if another store is there, :class:`RemoteConflict` if what is there
    does not agree, :class:`UsageError` if recipients are named too late, and else as
    :func:`open_remote`.
    """
    encrypted = _open_encrypted(remote, unlock, is_wanted=encrypt is not None)
    if encrypted is not None:
        assert encrypt is not None
        if encrypted.ring.store != store:
            raise NotPushed(remote.url, reason="another store is there. Choose another URL")
        if encrypt.recipients:
            raise UsageError("what is there has recipients. To add one: fsmount key add")
        return encrypted
    if encrypt is None:
        return remote
    for folder in (STATES, *FOLDERS):
        if list(islice(remote.list(folder), 1)):
            why = "it holds objects that are not encrypted. Choose another URL for encrypted ones"
            raise RemoteConflict(remote.url, reason=why)
    return remote if dry_run else _first_ring(remote, store, encrypt)


def _first_ring(remote: Transport, store: str, encrypt: FirstRecipients) -> Transport:
    """Make the keys of a URL. Raises as :func:`open_for_push`."""
    from fsmount.remote.encryption import recipients
    from fsmount.remote.encryption.ring import Ring

    named = {str(i): key for i, key in enumerate(recipients.read(encrypt.recipients), 1)}
    if not named:
        passphrase = encrypt.passphrase(remote.url)
        named = {"passphrase": recipients.put_locked(remote, passphrase)}
    ring = Ring.new(store, named)
    recipients.put_ring(remote, ring)
    return remembered(remote, ring, is_needed=True)


def _open_encrypted(
    remote: Transport, unlock: Unlock, *, is_wanted: bool = True
) -> EncryptedTransport | None:
    """Return the transport that decrypts, or None if the URL is not encrypted."""
    there = key_objects(remote)
    seen = seen_at(remote.url)
    if seen is not None and there.newest < seen.ring:
        what = f"the newest are number {there.newest}" if there.newest else "there are none"
        raise RemoteConflict(
            remote.url,
            reason=f"this machine has seen keys number {seen.ring} there, and {what}: they are"
            f" lost, removed or withheld. {_FORGET}",
        )
    if not there.newest:
        return None
    if not is_wanted:
        why = "what is there is encrypted. Say --encrypt, or choose another URL"
        raise RemoteConflict(remote.url, reason=why)
    ring = _ring(remote, there, unlock)
    if seen is not None and not (ring.store == seen.store and agrees(seen, ring.pins())):
        why = f"its keys are not those that this machine has seen there. {_FORGET}"
        raise RemoteConflict(remote.url, reason=why)
    return remembered(remote, ring)


def _ring(remote: Transport, there: KeyObjects, unlock: Unlock) -> Ring:
    """Read the newest ring. Raises :class:`KeyRefused`."""
    from fsmount.remote.encryption import age
    from fsmount.remote.encryption.ring import read_ring

    if unlock.identity is not None:
        data = unlock.identity.read_bytes()
        if not age.is_locked(data):
            return read_ring(remote, there.newest, age.identities(data))
        found = age.unlocked(data, unlock.passphrase(str(unlock.identity)))
        if found is None:
            raise KeyRefused(unlock.identity, reason="the passphrase is wrong")
        return read_ring(remote, there.newest, found)
    refused = KeyRefused(remote.url, reason="the passphrase is wrong")
    if not there.locked:
        why = "name the key of a recipient (--identity FILE, or FSMOUNT_IDENTITY)"
        raise KeyRefused(remote.url, reason=why)
    passphrase = unlock.passphrase(remote.url)
    for name in there.locked:
        found = age.unlocked(remote.get(name), passphrase)
        if found is not None:
            try:
                return read_ring(remote, there.newest, found)
            except KeyRefused as error:
                # A command that was stopped left it, or its recipient was removed.
                refused = error
    raise refused


def remembered(remote: Transport, ring: Ring, *, is_needed: bool = False) -> EncryptedTransport:
    """Return a transport with the keys of a ring that notes what this machine sees there.

    If `is_needed`, it raises OSError if the note cannot be written.
    """
    from fsmount.remote.encryption.encrypted import EncryptedTransport

    found = seen_at(remote.url) or Seen(remote.url)
    found.store, found.ring, found.pins = ring.store, ring.number, ring.pins()

    def see(generation: int) -> None:
        if generation > found.state:
            found.state = generation
            with suppress(OSError):
                note(found)

    try:
        note(found)
    except OSError:
        if is_needed:
            raise
    return EncryptedTransport(remote, ring, found.state, see)
