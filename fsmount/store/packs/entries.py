"""Entries of objects: writes and reads the records of pictures, JPEGs and raw files.

`docs/format.md` lists the keys and arrays of a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsmount.codec.delta import delta, record
from fsmount.codec.delta.delta import Copy, Fill, Source, TileLayout
from fsmount.codec.delta.payload import NOTHING, PAM
from fsmount.codec.delta.record import Record
from fsmount.codec.images import images, pam
from fsmount.codec.png.recipe import Recipe
from fsmount.errors import Damaged
from fsmount.store.packs.pack import Entry, build_entry

SUMS = ".sums"
FRAMES = ("key", "delta")
"""Kinds of objects that are frames."""
JPEG = "jpeg"
"""Kind of a JPEG that is kept as a JPEG XL file. The bytes of the JPEG can be made from it."""
DICTIONARY = "dictionary"
"""Kind of a dictionary: tiles of earlier frames, as a PAM picture. No file shows it."""
_MOST_DICTIONARY_BYTES = 1 << 20
_OURS = (NOTHING, SUMS, ".rec")
_PNG_ARRAYS = ("filters", "head", "tail", "idat_tail", "corrections", "repeated")
_DTYPES: dict[int, np.dtype[np.uint8] | np.dtype[np.uint16]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
}


@dataclass(frozen=True)
class FileFacts:
    """Facts that the record of each file has.

    id : object id.
    path, mtime_ns : path of the file, and its mtime in nanoseconds, when it was encoded.
    sha256 : SHA-256 of the file.
    size : size of the file in bytes.
    """

    id: int
    path: str
    mtime_ns: int
    sha256: bytes
    size: int

    def header(self, kind: str) -> dict[str, Any]:
        """The header keys that all records have. `kind` is the kind of the object."""
        return {
            "id": self.id,
            "kind": kind,
            "size": self.size,
            "mtime": self.mtime_ns,
            "path": self.path,
        }


def picture_record(about: FileFacts, layout: TileLayout, recipe: Recipe) -> Record:
    """Make the record of a picture: of a delta object if `layout` has sources, else of a key."""
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
    entry: bytes, about: FileFacts, kind: str, references: tuple[object, ...]
) -> bytes:
    """SHA-256 that covers the bytes of an entry and what its job says of it.

    `kind` is the kind of its object. `references` are plain values, and say what the entry refers
    to.
    """
    says = repr((about.header(kind), about.sha256, references))
    return hashlib.sha256(hashlib.sha256(entry).digest() + says.encode()).digest()


def jpeg_entry(about: FileFacts, payload: bytes) -> Entry:
    """Make the entry of a JPEG. `payload` is the JPEG XL file."""
    found = Record(about.header(JPEG), {"sha256": about.sha256})
    return Entry(f"{about.id:08x}{images.JXL}", record.pack(found), payload)


def dictionary_entry(about: FileFacts, payload: bytes) -> Entry:
    """Make the entry of a dictionary. `payload` is the file of its tiles; `about` has no path."""
    found = Record(about.header(DICTIONARY), {"sha256": about.sha256})
    return Entry(f"{about.id:08x}{PAM}", record.pack(found), payload)


def dictionary_content(entry: Entry, found: Record) -> bytes:
    """Return the content of a dictionary. `found` is its record.

    Raises :class:`Damaged` if the entry is none of :func:`dictionary_entry`, or if the content has
    another hash.
    """
    what = f"object {entry.object_id}"
    size = found.header.get("size")
    if found.header.get("kind") != DICTIONARY or entry.suffix != PAM:
        raise Damaged(what, reason="it is no dictionary")
    if not isinstance(size, int) or not 0 < size <= _MOST_DICTIONARY_BYTES:
        raise Damaged(what, reason=f"a dictionary of {size} bytes")
    plain = pam.unpack(entry.payload, size)
    if hashlib.sha256(plain).digest() != found.arrays.get("sha256"):
        raise Damaged(what, reason="the dictionary has another hash")
    return plain


def raw_entry(about: FileFacts, reason: str, payload: bytes) -> Entry:
    """Make the entry of a file that is kept verbatim.

    `payload` is the file's bytes. `reason` says why the file is not encoded.
    """
    return Entry(f"{about.id:08x}{_raw_suffix(about.path)}", _raw_record(about, reason), payload)


def raw_length(about: FileFacts, reason: str) -> int:
    """Length in bytes of the entry that :func:`raw_entry` makes, after :func:`build_entry`."""
    return len(build_entry(raw_entry(about, reason, b""))) + about.size


def kept_entry(about: FileFacts, reason: str, sums: bytes) -> Entry:
    """Make the entry of a large file that stays a file in ``raw/``.

    `sums` are the segment sums of the file (:func:`~fsmount.store.packs.bodies.dump_sums`). They
    are the payload. `reason` says why the file is not encoded.
    """
    return Entry(f"{about.id:08x}{SUMS}", _raw_record(about, reason), sums)


def _raw_record(about: FileFacts, reason: str) -> bytes:
    header = {**about.header("raw"), "reason": reason}
    return record.pack(Record(header, {"sha256": about.sha256}))


def _raw_suffix(path: str) -> str:
    """The suffix of a raw entry.

    It is the file's own suffix if that is short and plain, so that programs can open the file that
    unzip writes. Else it is ``.bin``.
    """
    suffix = Path(path).suffix
    plain = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 6
    return suffix.lower() if plain and suffix.lower() not in _OURS else ".bin"


def _sources_json(sources: Sequence[Source]) -> list[Any]:
    """Encode sources as JSON values, one for each slot."""
    out: list[Any] = []
    for source in sources:
        if isinstance(source, Copy):
            moved = source.dx or source.dy
            out.append([source.object, source.dx, source.dy] if moved else source.object)
        else:
            out.append(source and {"fill": list(source.colour)})
    return out


def _source(value: Any) -> Source:
    """Decode one value of :func:`_sources_json`. Raises ValueError, KeyError, TypeError."""
    if value is None:
        return None
    if isinstance(value, int):
        return Copy(value)
    if isinstance(value, list):
        number, dx, dy = map(int, value)
        return Copy(number, dx, dy)
    return Fill(tuple(int(sample) for sample in value["fill"]))


def layout_of(found: Record) -> TileLayout:
    """Read the layout from the record of a picture. Raises :class:`Damaged` if it is invalid."""
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
    return TileLayout(shape, dtype, tiles, sources, prediction)


def recipe_of(found: Record) -> Recipe:
    """Read the recipe from the record of a picture.

    Raises :class:`Damaged` if there is none, or an invalid one.
    """
    try:
        header = found.header["png"]
    except KeyError as error:
        raise Damaged("record", reason="no recipe") from error
    return Recipe.from_parts(header, [found.arrays.get(name, b"") for name in _PNG_ARRAYS])
