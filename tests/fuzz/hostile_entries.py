"""Entries that somebody has changed on purpose: each gives the file, or an error of ours.

    python -m tests.fuzz.hostile_entries [CASES [SEED]]

A case changes one entry of a small store, which has pictures of all kinds: bytes of the entry,
bytes of its members under right checksums, or values in its record, which is packed again. Then it
renders the file. The changed entry must give the same bytes or an FsmountError, in an address space
of the size that a worker has. Any other exception, a crash, or a case that takes longer than a
minute is a fault.
"""

from __future__ import annotations

import copy
import faulthandler
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trio

from fsmount.codec.delta import record
from fsmount.codec.delta.record import Record
from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.index import Object
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry, read_entry
from fsmount.store.store import open_store
from tests.crash.limits import small_limits
from tests.support import animations
from tests.support.animations import animation
from tests.support.encoding import forget_caches, put
from tests.support.frames import png, screens, scrolled
from tests.support.pngs import STYLES, TYPES, Plan, build, make_rows, with_types

# Address space of a worker (docs/performance.md), and seconds of a case.
_MEMORY = 4 << 30
_SECONDS = 60
_NUMBERS = (
    -1,
    0,
    1,
    2,
    255,
    256,
    65535,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 63,
    1 << 80,
)


class Store:
    """The objects of a store, with what each needs."""

    def __init__(self, root: Path) -> None:
        self._objects: dict[int, Object] = {}
        self._places: dict[int, Location] = {}
        self.entries: dict[int, Entry] = {}
        config.make(root, Disk())
        trio.run(self._fill, root)

    async def _fill(self, root: Path) -> None:
        with open_store(root) as opened:
            async with opened.running(count=1) as store:
                for number, data in enumerate(_files()):
                    put(store, b"%03d" % number, data)
                    await store.drain()
                for found in store.index.all_objects():
                    path = store.layout.pack(found.pack)
                    place = Location(found.id, str(path), found.offset, found.length)
                    self._objects[found.id], self._places[found.id] = found, place
                    self.entries[found.id] = read_entry(path, found.offset, found.length)

    def record_of(self, number: int) -> Record:
        stored = self.entries[number].record
        anchor = record.anchor_of(stored)
        return record.unpack(stored, self.record_of(anchor) if anchor else None)

    def packed(self, number: int, changed: Record) -> bytes:
        """Pack a changed record as the stored one is packed."""
        anchor = record.anchor_of(self.entries[number].record)
        return record.pack(changed, anchor, self.record_of(anchor) if anchor else None)

    def users(self, number: int) -> list[int]:
        """The objects whose files need an object, itself first."""
        return [number, *(i for i, found in self._objects.items() if number in found.needs)]

    def render(self, number: int, changed: Location) -> bytes:
        """Render a file while one entry lies elsewhere."""
        forget_caches()
        found = self._objects[number]
        places = self._places | {changed.id: changed}
        needs = [places[i] for i in found.needs if i != number]
        return jobs.render(places[number], needs, found.sha256).result


def _files() -> Iterator[bytes]:
    """Yield files of all kinds."""
    chance = np.random.default_rng(1)
    for frame in (*screens(12, seed=1, height=48, width=64), *scrolled(4, 64, 96)):
        yield png(frame)
    for channels, dtype in ((1, np.uint8), (2, np.uint8), (4, np.uint8), (3, np.uint16)):
        rows = np.cumsum(chance.integers(0, 3, (48, 64, channels)), axis=1)
        yield png((rows * (1 if dtype == np.uint8 else 257)).astype(dtype))
    source = random.Random(1)
    for interlace in (0, 1):
        lines = tuple(make_rows(source, 40, 30, 6, 8, STYLES[0]))
        canvas = with_types(Plan(40, 30, lines, bytes(30), interlace=interlace), TYPES[0])
        yield build(canvas)
        yield animations.build(animation(source, canvas, 3))
    yield b"no picture"
    yield png(screens(1, seed=2, height=48, width=64)[0])[:-20]


def _bytes(chance: random.Random, data: bytes) -> bytes:
    """Change some bytes: flip, replace, cut, insert, repeat."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            size = chance.choice((1, 2, 4, 8))
            value = chance.choice(_NUMBERS) % (1 << 8 * size)
            changed[at : at + size] = value.to_bytes(size, "little")
        elif kind == 2:
            del changed[at : at + chance.choice((1, 4, 100, len(changed)))]
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.choice((1, 4, 100)))
        else:
            changed[at:at] = changed[: chance.randrange(len(changed) + 1)]
    return bytes(changed)


def _value(chance: random.Random, value: Any) -> Any:
    """Change one place of a JSON value."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.9:
        return _inner(chance, value)
    if isinstance(value, int) and chance.random() < 0.7:
        return chance.choice((*_NUMBERS, value + 1, value - 1, -value))
    return chance.choice((None, "", "x", [], {}, 1.5, True, [[[[]]]], chance.choice(_NUMBERS)))


def _inner(chance: random.Random, value: Any) -> Any:
    """Change one place in an object or an array of JSON, or leave it out."""
    value = copy.copy(value)
    key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if chance.random() < 0.1:
        del value[key]
    else:
        value[key] = _value(chance, value[key])
    return value


def _record(chance: random.Random, found: Record) -> Record:
    header, arrays = dict(found.header), dict(found.arrays)
    if chance.random() < 0.6:
        header = _inner(chance, header)
        # A record has a field for it, which any 64 bits fit.
        header["mtime"] = found.header["mtime"]
    else:
        name = chance.choice([each for each in arrays if each != "sha256"] or ["tiles"])
        arrays[name] = _bytes(chance, arrays.get(name, b""))
    return Record(header, arrays)


def changed_entry(chance: random.Random, store: Store, number: int) -> bytes:
    """The bytes of an entry that differs from that of the object in one way."""
    entry = store.entries[number]
    kind = chance.randrange(4)
    if kind == 0:
        return _bytes(chance, build_entry(entry))
    if kind == 1:
        return build_entry(replace(entry, payload=_bytes(chance, entry.payload)))
    if kind == 2 and entry.photographs is not None:
        photographs = replace(entry.photographs, data=_bytes(chance, entry.photographs.data))
        return build_entry(replace(entry, photographs=photographs))
    packed = store.packed(number, _record(chance, store.record_of(number)))
    return build_entry(replace(entry, record=packed))


def main() -> None:
    """Run the command that the module describes."""
    count, seed = (*map(int, sys.argv[1:]), *(20_000, 1)[len(sys.argv) - 1 :])
    small_limits()
    refused = 0
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store")
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        other = Path(scratch) / "changed"
        for case in range(count):
            chance = random.Random(f"{seed} {case}")
            number = chance.choice(list(store.entries))
            data = changed_entry(chance, store, number)
            other.write_bytes(data)
            changed = Location(number, str(other), 0, len(data))
            shown = chance.choice(store.users(number))
            faulthandler.dump_traceback_later(_SECONDS, exit=True)
            try:
                store.render(shown, changed)
            except FsmountError:
                refused += 1
            except BaseException as error:
                sys.exit(f"case {case} of seed {seed}, object {number}: {error!r}")
            faulthandler.cancel_dump_traceback_later()
    print(f"{count} changed entries: {refused} refused, the others gave the file; nothing found")


if __name__ == "__main__":
    main()
