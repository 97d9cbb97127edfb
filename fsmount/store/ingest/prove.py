"""The last check before a staged file is removed: the pack must hold what was proved.

A worker proves what it makes (docs/architecture.md, section 6). Then its answer crosses to this
process, becomes rows, and is written to a pack. An error on that way would cost the file, because
nothing else reads the entry before the staged file is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from fsmount.codec.delta import record
from fsmount.errors import Damaged
from fsmount.store.disk.disk import pread
from fsmount.store.frames.jobs import Proof
from fsmount.store.frames.relations import Below, relations
from fsmount.store.index import Object
from fsmount.store.packs.entries import FileFacts, dictionary_content, entry_digest
from fsmount.store.packs.pack import read_entry

_SLICE = 1 << 20


def is_staged(path: Path, sha256: bytes, size: int) -> bool:
    """Whether a staged file has this hash and size: another look than the worker's."""
    whole, length = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := pread(file.fileno(), _SLICE, length):
            whole.update(data)
            length += len(data)
    return (whole.digest(), length) == (sha256, size)


def check_frame(
    pack: Path, row: Object, about: FileFacts, proof: Proof, below: Mapping[int, Below]
) -> None:
    """Raises :class:`Damaged` unless the pack has the entry of a frame that a worker proved.

    `row`: what the index will say; `below`: what the objects rest on that the frame is made of.
    """
    with pack.open("rb", buffering=0) as file:
        data = pread(file.fileno(), row.length, row.offset)
    digest = entry_digest(data, about, row.kind, proof[:-1])
    columns = relations(proof.references, below)
    same = len(data) == row.length and digest == proof.digest
    if not same or columns != (row.needs, row.layer, row.depth):
        raise Damaged(pack, reason=f"object {row.id} is not what was proved")


def check_dictionary(pack: Path, row: Object, about: FileFacts) -> None:
    """Raises :class:`Damaged` unless the pack has a dictionary of this content."""
    entry = read_entry(pack, row.offset, row.length)
    found = record.unpack(entry.record)
    if not found.header.items() >= about.header(row.kind).items() or entry.object_id != row.id:
        raise Damaged(pack, reason=f"object {row.id} is not what was written")
    if hashlib.sha256(dictionary_content(entry, found)).digest() != about.sha256:
        raise Damaged(pack, reason=f"object {row.id} is not what was written")


def check_whole(
    pack: Path, row: Object, about: FileFacts, payload: bytes, suffix: str | None = None
) -> None:
    """Raises :class:`Damaged` unless the pack has an entry of this file, which is no frame.

    `payload`: the SHA-256 of its payload; `suffix`: how its name has to end, if that matters.
    """
    entry = read_entry(pack, row.offset, row.length)
    found = record.unpack(entry.record)
    if record.anchor_of(entry.record) or entry.suffix != (suffix or entry.suffix):
        raise Damaged(pack, reason=f"object {row.id} is not what was written")
    says = entry.object_id, found.header.items() >= about.header(row.kind).items(), found.arrays
    wanted = row.id, True, {"sha256": about.sha256}
    if says != wanted or hashlib.sha256(entry.payload).digest() != payload:
        raise Damaged(pack, reason=f"object {row.id} is not what was written")
