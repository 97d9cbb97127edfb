"""The index of a store as objects: a push sends the blocks of the SQLite file that changed.

A commit of SQLite changes a few pages, at any places. So an object holds the changed blocks of one
push, with their numbers. The objects of a state are applied in order: a later block counts.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fsmount.codec import zstd
from fsmount.errors import Damaged
from fsmount.remote.objects import INDEX, Part, State, read_part
from fsmount.remote.transport import Transport, where_of
from fsmount.store.disk.disk import Disk

BLOCK = 4096
# Blocks of one object: 16 MiB.
_MOST_BLOCKS = 4096
# When the changes of so many pushes are listed, the next push sends the index as a whole.
MOST_CHANGES = 64
_LEVEL = 9
# Objects of an index that are read at the same time.
_AT_ONCE = 8


def send(
    file: Path,
    last: State | None,
    remote: Transport,
    put: Callable[[str, bytes], Part],
    noted: Mapping[int, bytes] | None = None,
) -> list[Part]:
    """Send the blocks of an index that the last state does not have.

    `put` makes an object in a folder if it is not there, and returns its part. `noted` are the
    SHA-256 of the blocks of the last index, if they are known without reading it. Returns the
    objects of the index. Raises OSError, :class:`Damaged` and errors of the transport.
    """
    known: dict[int, bytes] = {}
    kept: list[Part] = []
    whole = 0 if last is None else last.index_size // (BLOCK * _MOST_BLOCKS)
    if last is not None and len(last.index) < MOST_CHANGES + whole:
        kept = list(last.index)
        known |= noted or {}
        for part in kept if noted is None else ():
            for number, block in _blocks(remote, part):
                known[number] = hashlib.sha256(block).digest()
    return kept + [put(INDEX, data) for data in _changed(file, known)]


def digests_of(file: Path) -> dict[int, bytes]:
    """SHA-256 of each block of an index, by number. Raises OSError."""
    with file.open("rb") as source:
        blocks = iter(lambda: source.read(BLOCK), b"")
        return {number: hashlib.sha256(block).digest() for number, block in enumerate(blocks)}


def _changed(file: Path, known: dict[int, bytes]) -> Iterator[bytes]:
    """Yield objects of the blocks whose SHA-256 is not the one in `known`."""
    numbers: list[int] = []
    blocks: list[bytes] = []
    with file.open("rb") as source:
        number = 0
        while block := source.read(BLOCK):
            if known.get(number) != hashlib.sha256(block).digest():
                numbers.append(number)
                blocks.append(block)
            number += 1
            if len(blocks) == _MOST_BLOCKS:
                yield _encoded(numbers, blocks)
                numbers.clear()
                blocks.clear()
    if blocks:
        yield _encoded(numbers, blocks)


def _encoded(numbers: list[int], blocks: list[bytes]) -> bytes:
    head = struct.pack(f"<I{len(numbers)}I", len(numbers), *numbers)
    return zstd.compress(head + b"".join(blocks), _LEVEL)


def _blocks(remote: Transport, part: Part) -> Iterator[tuple[int, bytes]]:
    """Read an object. Yield its blocks, with their numbers. Raises :class:`Damaged`."""
    return _decoded(remote, part, read_part(remote, part))


def _decoded(remote: Transport, part: Part, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of the object `data`, with their numbers. Raises :class:`Damaged`."""
    plain = zstd.decompress(data, 4 + _MOST_BLOCKS * (4 + BLOCK))
    (count,) = struct.unpack_from("<I", plain)
    at = 4 + 4 * count
    if count > _MOST_BLOCKS or at > len(plain):
        raise Damaged(where_of(remote, part.name), reason="it is no part of an index")
    for number in struct.unpack_from(f"<{count}I", plain, 4):
        yield number, plain[at : at + BLOCK]
        at += BLOCK


def receive(remote: Transport, state: State, file: Path, disk: Disk) -> None:
    """Make the index of a state: a new file, which is forced.

    Raises OSError, :class:`Damaged` and errors of the transport.
    """
    disk.unlink(file)
    fd = disk.create(file)
    try:
        for part in state.index:
            for number, block in _blocks(remote, part):
                disk.pwrite(fd, block, number * BLOCK)
        disk.ftruncate(fd, state.index_size)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    if sha256_of(file) != state.index_sha256:
        raise Damaged(where_of(remote, INDEX), reason="the index is not the one that was pushed")


def update(remote: Transport, state: State, known: Sequence[Part], file: Path, disk: Disk) -> None:
    """Turn the index that the objects `known` made into that of a state, which begins with them.

    Reads the others, several at a time. Forces nothing.

    Raises OSError, :class:`Damaged` and errors of the transport.
    """
    parts = state.index[len(known) :]
    fd = disk.open(file, os.O_RDWR)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            # Only so many are asked for ahead: each takes up to 16 MiB.
            for at in range(0, len(parts), _AT_ONCE):
                some = parts[at : at + _AT_ONCE]
                for part, data in zip(
                    some, threads.map(partial(read_part, remote), some), strict=True
                ):
                    for number, block in _decoded(remote, part, data):
                        disk.pwrite(fd, block, number * BLOCK)
        disk.ftruncate(fd, state.index_size)
    finally:
        disk.close(fd)
    if sha256_of(file) != state.index_sha256:
        raise Damaged(where_of(remote, INDEX), reason="the index is not the one that was pushed")


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
