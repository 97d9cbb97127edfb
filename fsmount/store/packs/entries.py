"""What the entry of an object says: records of pictures, JPEGs and raw files, written and read.

`docs/format.md` lists the keys and arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsmount.codec.delta import delta, record
from fsmount.codec.delta.delta import Copy, Fill, Layout, Source
from fsmount.codec.delta.record import Record
from fsmount.codec.images import images
from fsmount.codec.png.png import Recipe
from fsmount.errors import Damaged
from fsmount.store.packs.pack import Entry, build_entry

NO_PAYLOAD = ".nil"
SUMS = ".sums"
FRAMES = ("key", "delta")
"""Kinds of objects that are frames."""
JPEG = "jpeg"
"""The kind of a JPEG that is kept as a JPEG XL file, from which its bytes can be made."""
_OURS = (NO_PAYLOAD, SUMS, ".rec")
_PNG_ARRAYS = ("filters", "head", "tail", "idat_tail", "corrections")
_DTYPES: dict[int, np.dtype[np.uint8] | np.dtype[np.uint16]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
}


@dataclass(frozen=True)
class About:
    """What is written of every file: object id, path and time when encoded, hash and size."""

    id: int
    path: str
    mtime_ns: int
    sha256: bytes
    size: int

    def header(self, kind: str) -> dict[str, Any]:
        """The keys that all records have."""
        return {
            "id": self.id,
            "kind": kind,
            "size": self.size,
            "mtime": self.mtime_ns,
            "path": self.path,
        }


def picture_record(about: About, layout: Layout, recipe: Recipe) -> Record:
    """The record of a key or delta object."""
    header = {
        **about.header("delta" if layout.sources else "key"),
        "frame": [*layout.shape, 8 * layout.dtype.itemsize],
        "png": recipe.header(),
        "sources": _sources_json(layout.sources),
    }
    arrays = {"sha256": about.sha256, "tiles": layout.tiles.tobytes()}
    if layout.prediction.any():
        arrays["prediction"] = layout.prediction.tobytes()
    arrays |= {n: blob for n, blob in zip(_PNG_ARRAYS, recipe.blobs(), strict=True) if blob}
    return Record(header, arrays)


def entry_digest(
    entry: bytes, about: About, kind: str, depth: int, layer: Sequence[int], needs: Sequence[int]
) -> bytes:
    """A hash of an entry's bytes and of all that the index says of its object."""
    says = repr((about.header(kind), about.sha256, depth, tuple(layer), tuple(needs)))
    return hashlib.sha256(hashlib.sha256(entry).digest() + says.encode()).digest()


def jpeg_entry(about: About, payload: bytes) -> Entry:
    """An entry that keeps a JPEG as the JPEG XL file `payload`."""
    found = Record(about.header(JPEG), {"sha256": about.sha256})
    return Entry(f"{about.id:08x}{images.JXL}", record.pack(found), payload)


def raw_entry(about: About, reason: str, payload: bytes) -> Entry:
    """An entry that keeps a file verbatim."""
    return Entry(f"{about.id:08x}{_raw_suffix(about.path)}", _raw_record(about, reason), payload)


def raw_length(about: About, reason: str) -> int:
    """Bytes of the entry that keeps a file verbatim."""
    return len(build_entry(raw_entry(about, reason, b""))) + about.size


def kept_entry(about: About, reason: str, sums: bytes) -> Entry:
    """The entry of a large file that stays a file in ``raw/``; the payload is its segment sums."""
    return Entry(f"{about.id:08x}{SUMS}", _raw_record(about, reason), sums)


def _raw_record(about: About, reason: str) -> bytes:
    header = {**about.header("raw"), "reason": reason}
    return record.pack(Record(header, {"sha256": about.sha256}))


def _raw_suffix(path: str) -> str:
    """The file's own suffix where it is short and plain, so that unzip gives something to open."""
    suffix = Path(path).suffix
    plain = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 6
    return suffix.lower() if plain and suffix.lower() not in _OURS else ".bin"


def _sources_json(sources: Sequence[Source]) -> list[Any]:
    out: list[Any] = []
    for source in sources:
        if isinstance(source, Copy):
            moved = source.dx or source.dy
            out.append([source.object, source.dx, source.dy] if moved else source.object)
        else:
            out.append(source and {"fill": list(source.colour)})
    return out


def _source(value: Any) -> Source:
    if value is None:
        return None
    if isinstance(value, int):
        return Copy(value)
    if isinstance(value, list):
        number, dx, dy = map(int, value)
        return Copy(number, dx, dy)
    return Fill(tuple(int(sample) for sample in value["fill"]))


def layout_of(found: Record) -> Layout:
    """The layout a record describes; raises :class:`Damaged`."""
    try:
        height, width, channels, bits = found.header["frame"]
        shape = (int(height), int(width), int(channels))
        grid = delta.tile_grid(shape)
        tiles = np.frombuffer(found.arrays["tiles"], np.uint8).reshape(grid)
        stored = found.arrays.get("prediction") or bytes(tiles.size)
        prediction = np.frombuffer(stored, np.uint8).reshape(grid)
        sources = tuple(_source(value) for value in found.header.get("sources", ()))
        dtype = _DTYPES[bits]
        if not 1 <= channels <= 4 or min(shape) < 1:
            raise Damaged("record", reason=f"a frame of {shape}")
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise Damaged("record", reason=error) from error
    return Layout(shape, dtype, tiles, sources, prediction)


def recipe_of(found: Record) -> Recipe:
    """The recipe a record holds; raises :class:`Damaged`."""
    try:
        header = found.header["png"]
    except KeyError as error:
        raise Damaged("record", reason="no recipe") from error
    return Recipe.from_parts(header, [found.arrays.get(name, b"") for name in _PNG_ARRAYS])
