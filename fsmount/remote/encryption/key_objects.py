"""Which objects of a URL are keys. Their presence says that the URL is encrypted.

This needs no library: whoever opens a URL asks for it first.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fsmount.remote.transport import Transport

KEYS = "keys"
_RING = re.compile(rf"{KEYS}/([0-9]{{6}})\.age", re.ASCII)
_IDENTITY = re.compile(rf"{KEYS}/[0-9a-f]{{16}}\.identity\.age", re.ASCII)


def ring_name(number: int) -> str:
    """The name of the object of a ring."""
    return f"{KEYS}/{number:06d}.age"


def identity_name(recipient: str) -> str:
    """The name of the object with the identity of a recipient, which a passphrase opens."""
    return f"{KEYS}/{hashlib.sha256(recipient.encode()).hexdigest()[:16]}.identity.age"


@dataclass(frozen=True)
class KeyObjects:
    """What lies in ``keys/`` of a URL.

    newest : number of the newest ring; 0 if there is none, so the URL is not encrypted.
    locked : the names of the objects with an identity that a passphrase opens.
    """

    newest: int
    locked: tuple[str, ...]


def key_objects(remote: Transport) -> KeyObjects:
    """Return the keys of a URL. Raises errors of the transport.

    The first ring is never removed. So whether a URL is encrypted is asked without a list, which
    costs ten times as much.
    """
    if remote.size(ring_name(1)) is None:
        return KeyObjects(0, ())
    names = [name for name, _ in remote.list(KEYS)]
    rings = [int(found[1]) for name in names if (found := _RING.fullmatch(name))]
    locked = [name for name in names if _IDENTITY.fullmatch(name)]
    return KeyObjects(max(rings, default=0), tuple(locked))
