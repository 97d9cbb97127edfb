"""Files of age (https://age-encryption.org), by pyrage: recipients, identities, passphrases.

A recipient is a public key, as text: ``age1...``, ``ssh-ed25519 ...`` or ``ssh-rsa ...``. An
identity is the secret key of one. Each file here opens with the program ``age``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from fsmount.errors import KeyRefused, RemoteNeedsExtra, UsageError

try:
    import pyrage
except ImportError as missing:
    raise RemoteNeedsExtra("an encrypted URL", package="pyrage", extra="encrypt") from missing

Identity: TypeAlias = pyrage.x25519.Identity | pyrage.ssh.Identity
_Recipient: TypeAlias = pyrage.x25519.Recipient | pyrage.ssh.Recipient
_AGE, _ARMOR = b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"
_SECRET = "AGE-SECRET-KEY-1"


def recipient(text: str) -> str:
    """Return a recipient as it is kept: without a comment. Raises :class:`UsageError`."""
    words = text.split()
    shown = " ".join(words[:2] if words[:1] and words[0].startswith("ssh-") else words)
    _parsed(shown)
    return shown


def _parsed(text: str) -> _Recipient:
    try:
        if text.startswith("ssh-"):
            return pyrage.ssh.Recipient.from_str(text)
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        forms = "age1..., ssh-ed25519 ... or ssh-rsa ..."
        raise UsageError(f"{text!r} is no recipient: {error}. Write {forms}") from error


def encrypted(data: bytes, recipients: Iterable[str]) -> bytes:
    """Return a file that each recipient can open. Raises :class:`UsageError`."""
    made: bytes = pyrage.encrypt(data, [_parsed(each) for each in recipients])
    return made


def decrypted(data: bytes, identities: Sequence[Identity], where: str) -> bytes:
    """Return what a file holds.

    Raises :class:`KeyRefused` if no identity opens it, or if it is damaged; `where` names it.
    """
    try:
        plain: bytes = pyrage.decrypt(data, identities)
    except pyrage.DecryptError as error:
        why = f"{error}. Name the key of one of its recipients (--identity FILE)"
        raise KeyRefused(where, reason=why) from error
    return plain


def new_identity() -> tuple[str, str]:
    """Make a key pair. Return (secret key, recipient)."""
    made = pyrage.x25519.Identity.generate()
    return str(made), str(made.to_public())


def locked(secret: str, passphrase: str) -> bytes:
    """Return the file of an identity that a passphrase opens. Takes seconds (scrypt)."""
    made: bytes = pyrage.passphrase.encrypt(f"{secret}\n".encode(), passphrase)
    return made


def unlocked(data: bytes, passphrase: str) -> list[Identity] | None:
    """Return the identities in a file of :func:`locked`; None if it is another passphrase.

    Takes seconds. Raises :class:`UsageError` if the file holds no identity.
    """
    try:
        return identities(pyrage.passphrase.decrypt(data, passphrase))
    except pyrage.DecryptError:
        return None


def is_locked(data: bytes) -> bool:
    """Whether the file of an identity needs a passphrase."""
    return data.startswith((_AGE, _ARMOR))


def identities(data: bytes) -> list[Identity]:
    """Return the identities in a file: a secret key of ssh, or lines with secret keys of age.

    Raises :class:`UsageError` if there is none, or if its passphrase must be removed first.
    """
    try:
        if b"PRIVATE KEY-----" in data:
            return [pyrage.ssh.Identity.from_buffer(data)]
        lines = data.decode("ascii", "replace").split()
        secrets = [line for line in lines if line.startswith(_SECRET)]
        found: list[Identity] = [pyrage.x25519.Identity.from_str(each) for each in secrets]
    except pyrage.IdentityError as error:
        raise UsageError(f"the file of the identity cannot be used: {error}") from error
    if not found:
        raise UsageError("the file of the identity holds no secret key of age or ssh")
    return found
