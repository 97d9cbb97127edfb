"""A transport that encrypts what it puts, and decrypts what it gets, for the one below it.

The names of objects come from hashes of their content. A server could compare those with hashes
of files that it knows, so the last part of a name is replaced by an HMAC of the name. States keep
their numbers.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator, Sequence

from fsmount.errors import Damaged, RemoteConflict, RemoteMissing
from fsmount.remote.encryption.ring import Ring
from fsmount.remote.encryption.sealing import (
    Broken,
    derived,
    opened,
    opened_range,
    place_of,
    plain_size,
    sealed,
)
from fsmount.remote.transport import Transport, where_of

STATE = re.compile(r"state/([0-9]{12})", re.ASCII)
# The size of an object that is there, and has the length of no encrypted one.
NOT_OURS = -1
_OTHER_BYTES = "it has other bytes than were sent. To send it again, run fsmount push --reread"
_RETIRED = (
    "it is encrypted with a master key that was given up before it was made: by a push while a"
    " recipient was removed, or by somebody who was removed. Delete it, and push again"
)


class EncryptedTransport:
    """The objects at an encrypted URL as if they were plain.

    See :class:`fsmount.remote.transport.Transport`. `get` and `get_range` also raise
    :class:`Damaged` if a bit is not as it was sent.

    Parameters
    ----------
    remote : Transport
        What is there.
    ring : Ring
        Its keys.
    newest : int
        The newest state that this machine has seen there. A list of states that ends before it
        raises :class:`RemoteConflict`.
    seen : callable
        Gets the number of each state that was read or made.
    """

    def __init__(
        self,
        remote: Transport,
        ring: Ring,
        newest: int = 0,
        seen: Callable[[int], None] = lambda generation: None,
    ) -> None:
        self.url = remote.url
        self.ring = ring
        self._remote = remote
        self._newest = newest
        self._seen = seen
        self._name_keys = [derived(each.key, ring.store, "names") for each in ring.keys]
        # Under which name an object was found; without a removed recipient there is only one.
        self._found: dict[str, str] = {}

    @property
    def keeps_versions(self) -> bool:
        """See :attr:`Transport.keeps_versions`."""
        return self._remote.keeps_versions

    def names_there(self, name: str) -> Sequence[str]:
        """All names that an object may have on the server, that of the newest key first."""
        if STATE.fullmatch(name):
            return [name]
        folder = name.rpartition("/")[0]
        keys = reversed(self._name_keys)
        return [f"{folder}/{hmac.digest(key, name.encode(), 'sha256').hex()}" for key in keys]

    def found_name(self, name: str) -> str:
        """The name that an object has on the server. Asks for it if there were several keys."""
        if len(self._likely(name)) > 1:
            self.size(name)
        return self._likely(name)[0]

    def put(self, name: str, data: bytes) -> bool:
        """Encrypt an object with the newest key, and make it."""
        there = self.names_there(name)[0]
        number = len(self.ring.keys)
        made = self._remote.put(there, sealed(data, number, self._key(there, number)))
        if made:
            self._found[name] = there
            self._note(name)
        return made

    def get(self, name: str) -> bytes:
        """Get an object and decrypt it. Raises :class:`Damaged` and :class:`RemoteMissing`."""

        def ask(there: str) -> bytes:
            return opened(self._remote.get(there), lambda number: self._key(there, number))

        data = self._asked(name, ask)
        self._note(name)
        return data

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Get and decrypt the chunks of a range. Raises as :meth:`get`."""
        at, size = place_of(start, length)

        def ask(there: str) -> bytes:
            if not length:
                return b""
            data = self._remote.get_range(there, at, size)
            return opened_range(data, start, length, lambda number: self._key(there, number))

        return self._asked(name, ask)

    def size(self, name: str) -> int | None:
        """Bytes of the plain object; None if there is none, NOT_OURS if it was cut off."""
        for there in self._likely(name):
            size = self._remote.size(there)
            if size is not None:
                self._found[name] = there
                plain = plain_size(size)
                return NOT_OURS if plain is None else plain
        return None

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the names that objects have on the server, and their plain bytes."""
        newest = 0
        for name, size in self._remote.list(folder):
            plain = plain_size(size)
            if found := STATE.fullmatch(name):
                newest = int(found[1])
            yield name, NOT_OURS if plain is None else plain
        if folder == "state" and newest < self._newest:
            what = f"it ends with state {newest}" if newest else "it shows no state"
            raise RemoteConflict(
                self.url,
                reason=f"{what}, and this machine has seen state {self._newest} there: newer ones"
                " are lost, removed or withheld. To accept that: fsmount key forget URL",
            )

    def folders(self) -> Sequence[str]:
        """Return the folders directly at the URL, as the server names them."""
        return self._remote.folders()

    def delete(self, name: str) -> None:
        """Remove an object, under all names that it may have."""
        self._found.pop(name, None)
        for there in self.names_there(name):
            self._remote.delete(there)

    def _likely(self, name: str) -> Sequence[str]:
        """The name under which an object was found, or all that it may have."""
        found = self._found.get(name)
        return self.names_there(name) if found is None else [found]

    def _asked(self, name: str, ask: Callable[[str], bytes]) -> bytes:
        """Ask for an object under each name that it may have, twice if its bytes are wrong."""
        for there in self._likely(name):
            try:
                try:
                    data = ask(there)
                except Broken:
                    # A network may have changed the answer: ask once more.
                    data = ask(there)
            except RemoteMissing:
                continue
            except Broken as error:
                raise Damaged(where_of(self._remote, there), reason=_OTHER_BYTES) from error
            self._found[name] = there
            return data
        raise RemoteMissing(where_of(self._remote, self.names_there(name)[0]))

    def _key(self, there: str, number: int) -> bytes:
        """The key of an object. Raises :class:`Broken`; :class:`Damaged` of a retired key."""
        if not 1 <= number <= len(self.ring.keys):
            raise Broken
        if found := STATE.fullmatch(there):
            wanted = self.ring.key_of_state(int(found[1]))
            if number != wanted:
                raise Damaged(where_of(self._remote, there), reason=_RETIRED)
        return derived(self.ring.keys[number - 1].key, self.ring.store, f"object {there}")

    def _note(self, name: str) -> None:
        if found := STATE.fullmatch(name):
            self._newest = max(self._newest, int(found[1]))
            self._seen(int(found[1]))
