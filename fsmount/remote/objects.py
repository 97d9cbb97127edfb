"""Objects named by their content, and the states of a store that name them.

`docs/remote-format.md` specifies both to the byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from fsmount.codec import zstd
from fsmount.errors import (
    Damaged,
    FormatUnsupported,
    FsmountError,
    PushOvertaken,
    RemoteArchived,
    RemoteFailed,
    RemoteMissing,
    RemoteRefused,
    StatePruned,
)
from fsmount.remote.transport import Transport, where_of
from fsmount.store.transfer.tree import Progress

FORMAT = 1
STATES = "state"
PACKS, TAILS, INDEX, STAGED, RAW = "packs", "tails", "index", "staged", "raw"
FOLDERS = (PACKS, TAILS, INDEX, STAGED, RAW)
CONTRADICTION = "the server refused to make it, as if it were there. Run the command again"
# The largest state: 4 million objects, which is 200 TB of packs.
_MOST_STATE = 1 << 30
_SHA_BYTES = 32
_STATE = re.compile(rf"{STATES}/[0-9]{{12}}", re.ASCII)
_LEVEL = 9


@dataclass(frozen=True)
class Part:
    """A run of bytes that is one object.

    folder : the folder of the object, one of FOLDERS or a folder in it; its name there is `sha256`.
    sha256 : SHA-256 of the object, in hex.
    length : bytes of the object.
    """

    folder: str
    sha256: str
    length: int

    @property
    def name(self) -> str:
        """The name of the object."""
        return f"{self.folder}/{self.sha256}"

    @property
    def kind(self) -> str:
        """Which one of FOLDERS it lies in."""
        return self.folder.partition("/")[0]

    @classmethod
    def of(cls, folder: str, data: bytes) -> Part:
        """The part that `data` is."""
        return cls(folder, hashlib.sha256(data).hexdigest(), len(data))


@dataclass
class Body:
    """A file of a store: its parts, one behind the other.

    size, mtime_ns : those of the file in the store when it was read.
    parts : of a sealed pack all its bytes; of another pack its committed entries.
    """

    size: int
    mtime_ns: int
    parts: list[Part]

    @property
    def length(self) -> int:
        """Bytes of all parts."""
        return sum(part.length for part in self.parts)


@dataclass
class State:
    """One state of a store, with all objects that it consists of.

    generation : its number, from 1; each is made once.
    uuid : the identity of the store.
    config : the text of its ``fsmount.json``.
    opened : how often it was opened for writing.
    time : when it was pushed, in seconds since 1970.
    pusher : random, so that a pusher knows its own state.
    index_size, index_sha256 : the index file.
    index : the objects that it is made from; see :mod:`fsmount.remote.index_pages`.
    packs, staged, raw : files by their names in these folders of the store.
    prunes : how many prunes there were; see :func:`folder_of`.
    """

    generation: int = 0
    uuid: str = ""
    config: str = ""
    opened: int = 0
    time: int = 0
    pusher: str = ""
    index_size: int = 0
    index_sha256: str = ""
    index: list[Part] = field(default_factory=list)
    packs: dict[str, Body] = field(default_factory=dict)
    staged: dict[str, Body] = field(default_factory=dict)
    raw: dict[str, Body] = field(default_factory=dict)
    prunes: int = 0

    def shows_the_same(self, other: State) -> bool:
        """Whether both show the same store, whoever pushed them, and whenever."""
        ours, theirs = asdict(self), asdict(other)
        for key in ("generation", "time", "pusher", "prunes"):
            del ours[key], theirs[key]
        return ours == theirs

    def parts(self) -> list[Part]:
        """All objects that it names, each once, in the order of their names."""
        found = {part.name: part for part in self.index}
        for files in (self.packs, self.staged, self.raw):
            found |= {part.name: part for body in files.values() for part in body.parts}
        return [found[name] for name in sorted(found)]

    def encoded(self) -> bytes:
        """The bytes of its object."""
        values = asdict(self) | {"format": FORMAT}
        if not self.prunes:
            del values["prunes"]
        values["index"] = [_row(part) for part in self.index]
        for name in ("packs", "staged", "raw"):
            values[name] = {key: [body.size, body.mtime_ns, *map(_row, body.parts)]
                            for key, body in getattr(self, name).items()}  # fmt: skip
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        frame = zstd.compress(text, _LEVEL)
        return hashlib.sha256(frame).digest() + frame

    @classmethod
    def parse(cls, data: bytes, where: str) -> State:
        """The state of an object; `where` is its URL.

        Raises :class:`Damaged` and :class:`FormatUnsupported`.
        """
        digest, frame = data[:_SHA_BYTES], data[_SHA_BYTES:]
        if hashlib.sha256(frame).digest() != digest:
            raise Damaged(where, reason="its checksum is wrong. Delete it to use the state before")
        values: dict[str, Any] = json.loads(zstd.decompress(frame, _MOST_STATE))
        version = values.pop("format")
        if version != FORMAT:
            raise FormatUnsupported(where, version=version, supported=FORMAT)
        values["index"] = [Part(*row) for row in values["index"]]
        for name in ("packs", "staged", "raw"):
            values[name] = {key: Body(size, mtime_ns, [Part(*row) for row in rows])
                            for key, (size, mtime_ns, *rows) in values[name].items()}  # fmt: skip
        return cls(**values)


def _row(part: Part) -> list[str | int]:
    return [part.folder, part.sha256, part.length]


def folder_of(kind: str, prunes: int) -> str:
    """The folder of new objects after so many prunes.

    A prune removes objects from folders of prunes before it only, so no name comes back that a
    prune, however late, may remove.
    """
    return f"{kind}/{prunes}" if prunes else kind


def state_name(generation: int) -> str:
    """The name of the object of a state."""
    return f"{STATES}/{generation:012d}"


def last_state(remote: Transport) -> State | None:
    """Read the newest state; None if nothing was pushed there.

    Raises :class:`Damaged`, :class:`FormatUnsupported` and errors of the transport.
    """
    names = state_names(remote)
    return read_state(remote, names[-1]) if names else None


def state_names(remote: Transport) -> list[str]:
    """The names of all states, in order. Raises errors of the transport."""
    return [name for name, _ in remote.list(STATES) if _STATE.fullmatch(name)]


def read_state(remote: Transport, name: str) -> State:
    """Read the state in an object.

    Raises :class:`Damaged`, :class:`FormatUnsupported` and errors of the transport.
    """
    state = State.parse(remote.get(name), where_of(remote, name))
    if state_name(state.generation) != name:
        raise Damaged(where_of(remote, name), reason=f"it is state {state.generation}")
    return state


def make_state(remote: Transport, state: State, last: State | None) -> None:
    """Make the object of the state after `last`, which shows it to readers.

    Sets its number, its time and its pusher. Raises :class:`PushOvertaken` if somebody else made a
    state after `last`, :class:`RemoteFailed` and other errors of the transport.
    """
    state.generation = 1 if last is None else last.generation + 1
    state.time = int(time.time())
    state.pusher = secrets.token_hex(16)
    name, data = state_name(state.generation), state.encoded()
    # If an answer was lost, the second try finds the state that the first one made.
    if not remote.put(name, data):
        try:
            found = remote.get(name)
        except RemoteMissing as error:
            raise RemoteFailed(where_of(remote, name), reason=CONTRADICTION) from error
        except Damaged as error:
            # Under a master key that is not known here: a recipient was removed.
            raise PushOvertaken(remote.url) from error
        if found != data:
            raise PushOvertaken(remote.url)
    if max(state_names(remote), default="") > name:
        # Its number was free because a prune removed a state that somebody else had made. The later
        # states that are there do not know of this one.
        with suppress(RemoteRefused):
            remote.delete(name)
        raise PushOvertaken(remote.url)


def read_part(remote: Transport, part: Part) -> bytes:
    """Read an object and compare its hash.

    Raises :class:`Damaged`, :class:`RemoteMissing` and other errors of the transport.
    """
    data = remote.get(part.name)
    if len(data) != part.length or hashlib.sha256(data).hexdigest() != part.sha256:
        # A network may have changed the answer: ask once more.
        data = remote.get(part.name)
    if len(data) != part.length or hashlib.sha256(data).hexdigest() != part.sha256:
        why = "it has other bytes than were sent. To send it again, run fsmount push --reread"
        raise Damaged(where_of(remote, part.name), reason=why)
    return data


def why_missing(remote: Transport, generation: int, error: RemoteMissing) -> FsmountError:
    """The error for an object of a state that is missing: :class:`StatePruned`, or the same one.

    Asks whether the state is still there. If that fails, it is the same one.
    """
    try:
        is_there = remote.size(state_name(generation)) is not None
    except FsmountError:
        return error
    return error if is_there else StatePruned(remote.url, what=error.detail)


def damaged_parts(
    remote: Transport,
    state: State,
    progress: Progress = lambda files, count: None,
    archived: list[Part] | None = None,
) -> list[tuple[str, str]]:
    """Read all objects of a state. Return (URL, reason) of each that is missing or damaged.

    `progress` gets objects and bytes that are done. `archived` gets the objects in cold storage:
    only their sizes are compared. Without it, one of them raises :class:`RemoteArchived`. Raises
    :class:`StatePruned` if a prune removes the state meanwhile, and other errors of the transport.
    """
    found: list[tuple[str, str]] = []
    for part in state.parts():
        try:
            read_part(remote, part)
        except Damaged as error:
            found.append((str(error.detail), str(error.fields["reason"])))
        except RemoteMissing as error:
            why = why_missing(remote, state.generation, error)
            if why is not error:
                raise why from error
            found.append((str(error.detail), "it is missing"))
        except RemoteArchived as error:
            if archived is None:
                raise
            archived.append(part)
            if remote.size(part.name) != part.length:
                found.append((str(error.detail), "it has another size than was sent"))
        progress(1, part.length)
    return found
