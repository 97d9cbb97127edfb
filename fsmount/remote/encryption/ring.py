"""The ring: the master keys of a URL and who may open them, in one age file.

A ring is never changed: a new one gets the next number, and the highest number counts. Each holds
all master keys so far. Its file is encrypted to all recipients, so one conditional PUT changes who
may open it. A passphrase opens an identity that lies beside it, which is a recipient as any other.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from os import urandom

from fsmount.errors import FormatUnsupported, KeyRefused, RemoteConflict
from fsmount.remote.encryption import age
from fsmount.remote.encryption.key_objects import ring_name
from fsmount.remote.encryption.sealing import KEY_BYTES, derived
from fsmount.remote.transport import Transport, where_of

FORMAT = 1
RECIPIENT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class MasterKey:
    """A master key of 32 bytes, for all states after number `since` until the next key begins."""

    key: bytes = field(repr=False)
    since: int


@dataclass(frozen=True)
class Ring:
    """What the ring file holds.

    number : the number in its name, from 1.
    store : the identity of the store that is pushed there.
    keys : master keys; key number 1 is the first. The last one encrypts what is new.
    recipients : public keys by the names that people gave them.
    """

    number: int
    store: str
    keys: tuple[MasterKey, ...]
    recipients: dict[str, str]

    @classmethod
    def new(cls, store: str, recipients: dict[str, str]) -> Ring:
        """Make the first ring, with a new master key."""
        return cls(1, store, (MasterKey(urandom(KEY_BYTES), 0),), recipients)

    @property
    def name(self) -> str:
        """The name of its object."""
        return ring_name(self.number)

    def after(self, keys: tuple[MasterKey, ...], recipients: dict[str, str]) -> Ring:
        """The next ring."""
        return replace(self, number=self.number + 1, keys=keys, recipients=recipients)

    def key_of_state(self, generation: int) -> int:
        """The number of the master key that must encrypt a state."""
        return max(i for i, each in enumerate(self.keys, 1) if i == 1 or each.since < generation)

    def pins(self) -> list[str]:
        """A fingerprint of each master key. It tells nothing about the key."""
        return [derived(each.key, self.store, "pin").hex() for each in self.keys]

    def encoded(self) -> bytes:
        """The bytes of its object: an age file. Raises :class:`UsageError`."""
        values = {
            "format": FORMAT,
            "number": self.number,
            "store": self.store,
            "keys": [{"key": each.key.hex(), "since": each.since} for each in self.keys],
            "recipients": self.recipients,
        }
        text = json.dumps(values, sort_keys=True, indent=1).encode()
        return age.encrypted(text, self.recipients.values())

    @classmethod
    def parse(cls, text: bytes, where: str) -> Ring:
        """The ring in a decrypted file.

        Raises :class:`KeyRefused` if it is none, and :class:`FormatUnsupported`.
        """
        try:
            values = json.loads(text)
            version = values["format"]
            if version != FORMAT:
                raise FormatUnsupported(where, version=version, supported=FORMAT)
            keys = [MasterKey(bytes.fromhex(row["key"]), row["since"]) for row in values["keys"]]
            ring = cls(values["number"], values["store"], tuple(keys), values["recipients"])
        except (ValueError, KeyError, TypeError) as error:
            raise KeyRefused(where, reason="it holds no keys of fsmount") from error
        if not keys or any(len(each.key) != KEY_BYTES for each in keys):
            raise KeyRefused(where, reason="it holds no keys of fsmount")
        return ring


def read_ring(remote: Transport, number: int, identities: list[age.Identity]) -> Ring:
    """Read a ring.

    Raises :class:`KeyRefused`, :class:`RemoteConflict`, :class:`FormatUnsupported`, errors of the
    transport.
    """
    name = ring_name(number)
    where = where_of(remote, name)
    ring = Ring.parse(age.decrypted(remote.get(name), identities, where), where)
    if ring.number != number:
        raise RemoteConflict(where, reason=f"it is ring {ring.number} under another name")
    return ring
