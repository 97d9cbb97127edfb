"""The recipe of a PNG file: what its bytes need besides the samples, and its form in a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from fsmount.codec.deflate.deflate import Corrections, DeflateParams
from fsmount.codec.png import filters, samples
from fsmount.errors import Damaged

MAX_FILE = 512 << 20
"""Limit for the bytes of a file."""
MAX_SIDE = 1 << 20
"""Limit for the sides of a frame."""
MAX_PICTURES = 1 << 12
"""Limit for the number of pictures of an animation."""
MAX_LISTED = 1 << 14
"""Limit for the number of chunk sizes that a recipe lists if they follow no rule."""

CORRECTIONS = 2
"""Number of the engine that reads correction records.

Number 1 would be classic zlib, never written.
"""

Split = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """A zlib stream and the chunks it is in, apart from the scanlines."""

    before: bytes
    """The bytes between the chunks of the stream before, or IHDR, and the first chunk."""
    zlib_header: int
    """CMF and FLG as found, 16 bits, big-endian (RFC 1950, section 2.2)."""
    params: DeflateParams | Corrections
    split: Split
    """How the stream is cut into chunks.

    0: into a single one. n: into n bytes each, with the rest in the last one. A tuple: the size of
    every chunk.
    """
    behind: bytes
    """Bytes after the zlib stream inside the chunks, usually none."""

    def header(self) -> list[object]:
        """Return the values z, p and i of :meth:`Recipe.header`."""
        params = self.params
        if isinstance(params, Corrections):
            numbers = [CORRECTIONS]
        else:
            numbers = [params.level, params.strategy, params.mem_level, params.window_bits]
        split = self.split if isinstance(self.split, int) else list(self.split)
        return [self.zlib_header, numbers, split]

    def blobs(self) -> tuple[bytes, bytes, bytes]:
        """Return the bytes before and behind the stream, and the correction record.

        The record is empty for classic zlib.
        """
        record = self.params.record if isinstance(self.params, Corrections) else b""
        return self.before, self.behind, record

    @classmethod
    def from_parts(cls, header: Sequence[object], blobs: tuple[bytes, bytes, bytes]) -> Stream:
        """Rebuild the stream from `header()` and `blobs()`. Raises Damaged."""
        zlib_header, numbers, split = header
        before, behind, record = blobs
        return cls(
            before,
            _number(zlib_header, 0xFFFF),
            _params(_numbers(numbers, 15, 1, 4), record),
            tuple(_numbers(split, MAX_FILE, 1, MAX_LISTED))
            if isinstance(split, list)
            else _number(split, MAX_FILE),
            behind,
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """The content of a PNG file apart from its samples."""

    colour_type: int
    bit_depth: int
    opaque: bool
    """Whether the file has an alpha channel that is opaque everywhere.

    The frame does not contain it.
    """
    filters: bytes
    """The filter type of each row: of all passes of all pictures."""
    streams: tuple[Stream, ...]
    """One for each picture. The first one is in the IDATs."""
    tail: bytes
    """The bytes after the last stream, usually only IEND."""
    interlaced: bool = False
    canvas: tuple[int, int] | None = None
    """Width and height of the pictures of an animation. None: the frame is a single picture."""
    repeated: bytes = b""
    """A bit for each tile of the further pictures of an animation, packed: whether it is repeated.

    Empty if no tile is.
    """

    @property
    def head(self) -> bytes:
        """The bytes between IHDR and the first IDAT."""
        return self.streams[0].before

    @property
    def params(self) -> DeflateParams | Corrections:
        """How the first stream is made."""
        return self.streams[0].params

    @property
    def split(self) -> Split:
        """How the first stream is cut into IDATs."""
        return self.streams[0].split

    @property
    def has_corrections(self) -> bool:
        """Whether a stream comes from a correction record."""
        return any(isinstance(stream.params, Corrections) for stream in self.streams)

    def header(self) -> dict[str, object]:
        """Return the small fields, in a form fit for JSON.

        - c: colour type.
        - d: bit depth.
        - o: opaque (0 or 1).
        - z: zlib header.
        - p: how the stream is made. Level, strategy, memory level and window bits of classic zlib,
          or a single number for another engine.
        - i: IDAT split (a number, or a list of sizes).
        - a: 1 if interlaced, else missing.
        - s, f: missing unless there are further pictures. Width and height of the canvas, and for
          each further stream z, p, i and the lengths of its parts of the large fields: head,
          idat_tail, correction record.
        """
        first, *further = self.streams
        z, p, i = first.header()
        found = {
            "c": self.colour_type,
            "d": self.bit_depth,
            "o": int(self.opaque),
            "z": z,
            "p": p,
            "i": i,
        }
        if self.interlaced:
            found["a"] = 1
        if self.canvas:
            found["s"] = list(self.canvas)
            found["f"] = [[*one.header(), *map(len, one.blobs())] for one in further]
        return found

    def blobs(self) -> tuple[bytes, ...]:
        """Return the large fields.

        They are filters, head, tail, idat_tail, the correction record, and repeated tiles. In an
        animation, head, idat_tail and record are those of all streams, joined.
        """
        blobs = zip(*(stream.blobs() for stream in self.streams), strict=True)
        heads, behind, records = map(b"".join, blobs)
        return self.filters, heads, self.tail, behind, records, self.repeated

    @classmethod
    def from_parts(cls, header: Mapping[str, object], blobs: Sequence[bytes]) -> Recipe:
        """Rebuild the recipe from `header()` and `blobs()`.

        Raises Damaged for any invalid value.
        """
        known = [set("cdozpi") | set(more) for more in ("", "a", "sf", "asf")]
        if (
            not isinstance(header, Mapping)
            or set(header) not in known
            or [type(part) for part in blobs] != [bytes] * 6
        ):
            raise bad_recipe("unknown fields")
        colour_type, bit_depth = _number(header["c"], 6), _number(header["d"], 16)
        if bit_depth not in samples.DEPTHS.get(colour_type, ()):
            raise bad_recipe("no such colour type and bit depth")
        opaque = bool(_number(header["o"], 1))
        if opaque and colour_type not in (4, 6):
            raise bad_recipe("opaque without alpha")
        canvas = _numbers(header["s"], MAX_SIDE, 2, 2) if "s" in header else []
        row_filters, heads, tail, behind, records, repeated = blobs
        if not row_filters or max(row_filters) > filters.PAETH:
            raise bad_recipe("no such filter types")
        return cls(
            colour_type,
            bit_depth,
            opaque,
            row_filters,
            _streams(header, (heads, behind, records)),
            tail,
            bool(_number(header.get("a", 0), 1)),
            (canvas[0], canvas[1]) if canvas else None,
            repeated,
        )


def _number(value: object, maximum: int) -> int:
    """Return `value` if it is an integer from 0 to `maximum`. Raises Damaged."""
    if type(value) is not int or not 0 <= value <= maximum:
        raise bad_recipe("a number out of range")
    return value


def _numbers(value: object, maximum: int, fewest: int, most: int) -> list[int]:
    """Return `value` if it is a list of `fewest` to `most` such integers. Raises Damaged."""
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise bad_recipe("a list of the wrong length")
    return [_number(item, maximum) for item in value]


def _streams(header: Mapping[str, object], joined: Sequence[bytes]) -> tuple[Stream, ...]:
    """Rebuild the streams of a recipe. `joined`: as :meth:`Recipe.blobs` joins them.

    Raises Damaged.
    """
    further = header.get("f", [])
    if not isinstance(further, list) or len(further) >= MAX_PICTURES:
        raise bad_recipe("no list of pictures")
    values: list[list[object]] = [[header["z"], header["p"], header["i"]]]
    lengths = [[0, 0, 0]]
    for one in further:
        if not isinstance(one, list) or len(one) != 6:
            raise bad_recipe("no such picture")
        values.append(one[:3])
        lengths.append([_number(length, MAX_FILE) for length in one[3:]])
    heads, behind, records = map(_cut, joined, zip(*lengths, strict=True))
    blobs = zip(heads, behind, records, strict=True)
    return tuple(map(Stream.from_parts, values, blobs))


def _cut(joined: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Cut parts of these lengths apart; the first part gets what is left. Raises Damaged."""
    first = len(joined) - sum(lengths)
    if first < 0:
        raise bad_recipe("parts beyond their array")
    edges = [0, *accumulate(lengths[1:], initial=first)]
    return [joined[start:end] for start, end in pairwise(edges)]


def _params(numbers: list[int], record: bytes) -> DeflateParams | Corrections:
    """Return the deflate parameters of a recipe. Raises Damaged."""
    if numbers == [CORRECTIONS]:
        return Corrections(record)
    if len(numbers) != 4 or record:
        raise bad_recipe("no such deflate engine")
    params = DeflateParams(*numbers)
    if not params.valid():
        raise bad_recipe("no such deflate parameters")
    return params


def bad_recipe(reason: str) -> Damaged:
    """Return the error for a recipe that does not fit."""
    return Damaged("recipe", reason=reason)
