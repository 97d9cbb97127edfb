"""What of a store is at which URL: a note of each last push, in the folder ``pushed/``.

A push writes it when its state is complete, and it is only as true as the server keeps its objects.
Nothing in the store rests on it: a missing note costs the next push the reading of the index there.
`docs/format.md` specifies it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout

_FOLDER = "pushed"
_FORMAT = 1
_SHA_BYTES = 32


@dataclass(frozen=True)
class Pushed:
    """The last push to a URL.

    generation : number of the state.
    time : when it was complete, in seconds since 1970.
    index_sha256 : SHA-256 of the index of the state, in hex.
    packs : bytes of each pack that the state has, by the number of the pack.
    """

    url: str
    generation: int
    time: int
    index_sha256: str
    packs: Mapping[int, int] = field(default_factory=dict)

    def has(self, pack: int, end: int) -> bool:
        """Whether the bytes of a pack up to `end` are in the state."""
        return end <= self.packs.get(pack, 0)


def _path(layout: Layout, url: str, suffix: str) -> Path:
    key = hashlib.sha256(url.rstrip("/").encode(errors="surrogateescape")).hexdigest()[:32]
    return layout.root / _FOLDER / f"{key}.{suffix}"


def note(layout: Layout, disk: Disk, pushed: Pushed, blocks: Mapping[int, bytes]) -> None:
    """Write the note of a push. `blocks`: SHA-256 of each block of its index, by number.

    Waits for the disk. Raises OSError.
    """
    folder = layout.root / _FOLDER
    if not folder.is_dir():
        disk.mkdir(folder)
    # It tells for which index these are, and that all of it is as it was written: a push that
    # believed other hashes would leave out blocks.
    data = bytes.fromhex(pushed.index_sha256) + b"".join(blocks[i] for i in range(len(blocks)))
    data += hashlib.sha256(data).digest()
    disk.write_file(_path(layout, pushed.url, "blocks"), data)
    values = asdict(pushed) | {"format": _FORMAT}
    data = json.dumps(values, indent=1).encode() + b"\n"
    disk.write_file(_path(layout, pushed.url, "json"), data)


def all_pushed(layout: Layout) -> list[Pushed]:
    """All notes that can be read, by their URLs. Waits for the disk. Raises OSError."""
    found = []
    for path in sorted((layout.root / _FOLDER).glob("*.json")):
        with suppress(ValueError, TypeError, KeyError, FileNotFoundError):
            values: dict[str, Any] = json.loads(path.read_bytes())
            if values.pop("format") == _FORMAT:
                values["packs"] = {int(key): int(size) for key, size in values["packs"].items()}
                found.append(Pushed(**values))
    return sorted(found, key=lambda each: each.url)


def known_blocks(layout: Layout, url: str, index_sha256: str) -> dict[int, bytes] | None:
    """SHA-256 of each block of an index that was pushed, by number; None if it is not noted.

    Waits for the disk. Raises OSError.
    """
    try:
        data = _path(layout, url, "blocks").read_bytes()
    except FileNotFoundError:
        return None
    data, digest = data[:-_SHA_BYTES], data[-_SHA_BYTES:]
    if hashlib.sha256(data).digest() != digest or data[:_SHA_BYTES].hex() != index_sha256:
        return None
    places = range(_SHA_BYTES, len(data), _SHA_BYTES)
    return {number: data[at : at + _SHA_BYTES] for number, at in enumerate(places)}
