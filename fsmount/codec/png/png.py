"""PNG files as a frame and a recipe that together reproduce every byte of the file.

`parse` takes a file apart and proves that `assemble` puts it together again. If it cannot prove
this, it raises NotExact. This module interprets only the parts that exactness needs: IHDR, and the
zlib stream in the IDAT chunks. The recipe keeps all other bytes verbatim. Sources: PNG
specification, third edition; RFC 1950 for zlib streams.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsmount.codec.deflate import deflate, engine
from fsmount.codec.deflate.deflate import Corrections, DeflateParams
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import filters, samples, scanlines
from fsmount.codec.png.producer import unknown_encoder
from fsmount.codec.png.samples import Frame, SampleLayout
from fsmount.errors import Damaged, NotExact

# Limits of a picture. The first two are checked before anything is allocated.
MAX_FILE = 512 << 20
NOT_A_PNG = "not a PNG"
MAX_FRAME = 400 << 20
"""Limit for the bytes of all scanlines, and for the bytes of the unpacked frame."""
MAX_SIDE = 1 << 20
MAX_CHUNKS = 1 << 18
"""Limit for the number of chunks examined: chunks before the first IDAT, and IDATs."""
MAX_LISTED = 1 << 14
"""Limit for the number of IDAT sizes that a recipe lists if they follow no rule."""

CORRECTIONS = 2
"""Number of the engine that reads correction records.

Number 1 would be classic zlib, never written.
"""

# These values must never change: PNGs made from a folder of differences keep their bytes.
_CANONICAL = DeflateParams(level=6, strategy=1, mem_level=8, window_bits=15)
_CANONICAL_HEADER = 0x789C
_CANONICAL_SPLIT = 8192

# Most bytes that deflate makes of one byte: two bits give at most 258 bytes.
_MOST_INFLATED = 1032

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IDAT_FROM = len(_SIGNATURE) + 25

Split = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The content of a PNG file apart from its samples. Width and height follow from the frame."""

    colour_type: int
    bit_depth: int
    opaque: bool
    """Whether the file has an alpha channel that is opaque everywhere.

    The frame does not contain it.
    """
    zlib_header: int
    """CMF and FLG as found, 16 bits, big-endian (RFC 1950, section 2.2)."""
    params: DeflateParams | Corrections
    split: Split
    """How the zlib stream is cut into IDATs.

    0: into a single one. n: into n bytes each, with the rest in the last one. A tuple: the size of
    every IDAT.
    """
    filters: bytes
    """The filter type of each row."""
    head: bytes
    """The bytes between IHDR and the first IDAT."""
    tail: bytes
    """The bytes after the last IDAT, usually only IEND."""
    idat_tail: bytes
    """Bytes after the zlib stream inside the IDATs, usually none."""

    def header(self) -> dict[str, int | list[int]]:
        """Return the small fields, in a form fit for JSON.

        - c: colour type.
        - d: bit depth.
        - o: opaque (0 or 1).
        - z: zlib header.
        - p: how the stream is made. Level, strategy, memory level and window bits of classic zlib,
          or a single number for another engine.
        - i: IDAT split (a number, or a list of sizes).
        """
        params = self.params
        if isinstance(params, Corrections):
            numbers = [CORRECTIONS]
        else:
            numbers = [params.level, params.strategy, params.mem_level, params.window_bits]
        return {
            "c": self.colour_type,
            "d": self.bit_depth,
            "o": int(self.opaque),
            "z": self.zlib_header,
            "p": numbers,
            "i": self.split if isinstance(self.split, int) else list(self.split),
        }

    def blobs(self) -> tuple[bytes, ...]:
        """Return the large fields: filters, head, tail, idat_tail, and the correction record.

        The record is empty for classic zlib.
        """
        record = self.params.record if isinstance(self.params, Corrections) else b""
        return self.filters, self.head, self.tail, self.idat_tail, record

    @classmethod
    def from_parts(cls, header: Mapping[str, object], blobs: Sequence[bytes]) -> Recipe:
        """Rebuild the recipe from `header()` and `blobs()`.

        Raises Damaged for any invalid value.
        """
        if set(header) != set("cdozpi") or [type(part) for part in blobs] != [bytes] * 5:
            raise _bad_recipe("unknown fields")
        colour_type, bit_depth = _number(header["c"], 6), _number(header["d"], 16)
        if bit_depth not in samples.DEPTHS.get(colour_type, ()):
            raise _bad_recipe("no such colour type and bit depth")
        opaque = bool(_number(header["o"], 1))
        if opaque and colour_type not in (4, 6):
            raise _bad_recipe("opaque without alpha")
        split = header["i"]
        row_filters, head, tail, idat_tail, record = blobs
        params = _params(_numbers(header["p"], 15, 1, 4), record)
        if not row_filters or max(row_filters) > filters.PAETH:
            raise _bad_recipe("no such filter types")
        return cls(
            colour_type,
            bit_depth,
            opaque,
            _number(header["z"], 0xFFFF),
            params,
            tuple(_numbers(split, MAX_FILE, 1, MAX_LISTED))
            if isinstance(split, list)
            else _number(split, MAX_FILE),
            row_filters,
            head,
            tail,
            idat_tail,
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """The frame and the recipe of a PNG file."""

    frame: Frame
    recipe: Recipe


def parse(
    data: bytes,
    hints: Sequence[DeflateParams] = (),
    *,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> Picture:
    """Take a PNG file apart, so that `assemble(frame, recipe)` equals `data`, byte for byte.

    Tries the deflate parameters in `hints` first, on `threads` threads. `memory` provides earlier
    pictures, and keeps this one. Raises only NotExact: for other files, for damaged, interlaced or
    animated PNGs, for pictures beyond the limits above, and for deflate streams whose correction
    record would not be shorter than the stream.
    """
    layout = _read_layout(data)
    idat_start = _first_idat(data)
    sizes, tail_start = _idats(data, idat_start)
    stream = _stream(data, idat_start, sizes)
    raw, body, rest, checksum = _unpack(stream, layout)
    frame, opaque, types = scanlines.read(raw, layout, memory)
    zlib_header = int.from_bytes(stream[:2], "big")
    row_bytes = layout.row_bytes + 1
    params = deflate.search(
        raw,
        body,
        hints,
        header=zlib_header,
        row_bytes=row_bytes,
        threads=threads,
        memory=memory,
    )
    if params is None:
        raise unknown_encoder(data[_IDAT_FROM:idat_start], data[tail_start:], sizes[0])
    recipe = Recipe(
        layout.colour_type,
        layout.bit_depth,
        opaque,
        zlib_header,
        params,
        _split(sizes),
        types,
        data[_IDAT_FROM:idat_start],
        data[tail_start:],
        rest[4:],
    )
    # The search has proved the body, and the filters have reproduced its input. Only the bytes
    # around them still need a proof.
    if _file(layout, recipe, body, checksum) != data:
        raise NotExact("damaged: chunks do not add up")
    return Picture(frame, recipe)


def read(data: bytes) -> tuple[Frame, SampleLayout, bytes]:
    """Return the samples of a PNG with all channels, its layout, and its chunks before the IDATs.

    The samples are uint8 or uint16, shape (height, width, channels). The chunks are the bytes
    between IHDR and the first IDAT. This function needs no recipe, so it reads PNGs of any deflate
    encoder. Raises NotExact like `parse`.
    """
    layout = _read_layout(data)
    start = _first_idat(data)
    raw, *_ = _unpack(_stream(data, start, _idats(data, start)[0]), layout)
    rows, _ = filters.undo(raw, layout.height, layout.row_bytes, layout.pixel_bytes)
    return samples.from_rows(rows, layout), layout, data[_IDAT_FROM:start]


def canonical(
    frame: Frame,
    head: bytes = b"",
    *,
    palette: bool = False,
    memory: WorkerMemory | None = None,
) -> bytes:
    """Return the canonical PNG file of a frame: the same frame always gives the same bytes.

    It stands for a PNG whose own bytes are lost. docs/format.md specifies the rule. `frame` is
    uint8 or uint16, shape (height, width, channels), with all channels. `head` contains chunks to
    keep (for a palette picture, PLTE and tRNS).
    """
    height, _, channels = frame.shape
    recipe = Recipe(
        3 if palette else (0, 4, 2, 6)[channels - 1],
        8 * frame.dtype.itemsize,
        False,
        _CANONICAL_HEADER,
        _CANONICAL,
        _CANONICAL_SPLIT,
        bytes((filters.UP,)) * height,
        head,
        b"".join(_chunk(b"IEND", b"")),
        b"",
    )
    return assemble(frame, recipe, memory=memory)


def assemble(
    frame: Frame, recipe: Recipe, *, threads: int = 1, memory: WorkerMemory | None = None
) -> bytes:
    """Return the PNG file of a frame and its recipe. Raises Damaged if they do not fit.

    `frame` is uint8 or uint16, shape (height, width, channels), without an opaque alpha channel
    that the recipe names. Deflates on `threads` threads. `memory` provides earlier streams, and
    keeps this one.
    """
    layout = _layout_of(frame, recipe)
    rows = samples.to_rows(frame, layout)
    types = np.frombuffer(recipe.filters, np.uint8)
    alpha = frame.itemsize if recipe.opaque else 0
    raw = filters.apply(rows, types, layout.pixel_bytes, alpha)
    row_bytes = layout.row_bytes + 1
    try:
        body = deflate.deflate(
            raw, recipe.params, row_bytes=row_bytes, threads=threads, memory=memory
        )
    except ValueError as error:
        raise _bad_recipe(str(error)) from error
    return _file(layout, recipe, body, engine.adler32(raw))


def _read_layout(data: bytes) -> SampleLayout:
    """Read IHDR (section 11.2.1) and check all limits that depend on it. Raises NotExact."""
    if len(data) > MAX_FILE:
        raise NotExact("too large")
    if not data.startswith(_SIGNATURE + b"\0\0\0\rIHDR"):
        raise NotExact(NOT_A_PNG)
    fields = data[16:29]
    if len(data) < _IDAT_FROM or data[29:33] != zlib.crc32(data[12:29]).to_bytes(4, "big"):
        raise NotExact("damaged: IHDR")
    layout = SampleLayout(
        int.from_bytes(fields[:4], "big"), int.from_bytes(fields[4:8], "big"), fields[9], fields[8]
    )
    if layout.bit_depth not in samples.DEPTHS.get(layout.colour_type, ()):
        raise NotExact("damaged: no such colour type and bit depth")
    if not layout.width or not layout.height or fields[10] or fields[11] or fields[12] > 1:
        raise NotExact("damaged: IHDR")
    if fields[12]:
        raise NotExact("interlaced")
    if max(layout.width, layout.height) > MAX_SIDE:
        raise NotExact("too large")
    if max(layout.scanline_bytes, layout.frame_bytes) > MAX_FRAME:
        raise NotExact("too large")
    return layout


def _first_idat(data: bytes) -> int:
    """Return the offset of the first IDAT. Raises NotExact."""
    at = _IDAT_FROM
    for _ in range(MAX_CHUNKS):
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":
            return at
        if kind == b"acTL":
            raise NotExact("animated")
        if kind == b"IEND" or len(kind) < 4:
            raise NotExact("damaged: no image data")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise NotExact("too many chunks")


def _idats(data: bytes, at: int) -> tuple[list[int], int]:
    """Return the sizes of the IDATs from `at` on, and the offset after the last of them.

    An IDAT that the end of the file cuts off counts as bytes after the IDATs: reading the zlib
    stream shows whether it is missing. Raises NotExact.
    """
    sizes: list[int] = []
    while data[at + 4 : at + 8] == b"IDAT":
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + size
        if end > len(data):
            break
        checksum = zlib.crc32(memoryview(data)[at + 4 : end - 4])
        if data[end - 4 : end] != checksum.to_bytes(4, "big"):
            raise NotExact("damaged: IDAT checksum")
        sizes.append(size)
        if len(sizes) > MAX_CHUNKS:
            raise NotExact("too many chunks")
        at = end
    if not sizes:
        raise NotExact("damaged: truncated")
    return sizes, at


def _stream(data: bytes, at: int, sizes: Sequence[int]) -> bytes:
    """Join the contents of the IDATs."""
    view = memoryview(data)
    parts = []
    for size in sizes:
        parts.append(view[at + 8 : at + 8 + size])
        at += 12 + size
    return b"".join(parts)


def _unpack(stream: bytes, layout: SampleLayout) -> tuple[bytes, bytes, bytes, int]:
    """Unpack an intact zlib stream. Raises NotExact.

    Returns the scanlines, the deflate body, the bytes after the body, and the Adler-32 of the
    scanlines.
    """
    if len(stream) < 2 or stream[0] & 15 != zlib.DEFLATED or stream[1] & 32:
        raise NotExact("damaged: zlib header")
    raw, body, rest = _inflate(stream, layout.scanline_bytes)
    checksum = engine.adler32(raw)
    if rest[:4] != checksum.to_bytes(4, "big"):
        raise NotExact("damaged: zlib checksum")
    return raw, body, rest, checksum


def _inflate(stream: bytes, expected: int) -> tuple[bytes, bytes, bytes]:
    """Return the raw bytes, the deflate body, and the bytes after it. Raises NotExact.

    Never holds more than `expected` + 1 raw bytes.
    """
    if expected > _MOST_INFLATED * len(stream):
        raise NotExact("damaged: truncated")
    try:
        raw, length = engine.inflate(memoryview(stream)[2:], expected)
    except ValueError as error:
        raise NotExact(f"damaged: {error}") from None
    return raw, stream[2 : 2 + length], stream[2 + length :]


def _split(sizes: Sequence[int]) -> Split:
    """Return the shortest form of a list of IDAT sizes, see Recipe.split. Raises NotExact."""
    first, last = sizes[0], sizes[-1]
    if len(sizes) == 1:
        return 0
    if 0 < last <= first and all(size == first for size in sizes[:-1]):
        return first
    if len(sizes) > MAX_LISTED:
        raise NotExact("too many chunks")
    return tuple(sizes)


def _sizes(split: Split, total: int) -> Sequence[int]:
    """Return the IDAT sizes of `total` bytes. Raises Damaged if the split does not fit."""
    if isinstance(split, tuple):
        if sum(split) != total:
            raise _bad_recipe("IDAT sizes do not add up")
        return split
    if not split or split >= total:
        return (total,)
    whole, rest = divmod(total, split)
    if whole > MAX_CHUNKS:
        raise _bad_recipe("too many IDAT chunks")
    return [split] * whole + [rest] * (rest > 0)


def _layout_of(frame: Frame, recipe: Recipe) -> SampleLayout:
    """Return the layout of the file to assemble. Raises Damaged if frame and recipe do not fit."""
    if frame.ndim != 3:
        raise Damaged("frame", reason="not an array of three dimensions")
    height, width, channels = frame.shape
    layout = SampleLayout(width, height, recipe.colour_type, recipe.bit_depth)
    if channels + recipe.opaque != layout.channels or frame.dtype != layout.dtype:
        raise Damaged("frame", reason="channels or sample type are not those of the recipe")
    if not 0 < width <= MAX_SIDE or not 0 < height == len(recipe.filters):
        raise Damaged("frame", reason="size is not that of the recipe")
    if recipe.bit_depth < 8 and frame.max() > layout.maximum:
        raise Damaged("frame", reason="samples beyond the bit depth")
    return layout


def _file(layout: SampleLayout, recipe: Recipe, body: bytes, checksum: int) -> bytes:
    """Assemble the whole file around a deflate body; `checksum` is the Adler-32 of its input."""
    fields = layout.width.to_bytes(4, "big") + layout.height.to_bytes(4, "big")
    fields += bytes((layout.bit_depth, layout.colour_type, 0, 0, 0))
    header = recipe.zlib_header.to_bytes(2, "big")
    stream = b"".join((header, body, checksum.to_bytes(4, "big"), recipe.idat_tail))
    parts = [_SIGNATURE, *_chunk(b"IHDR", fields), recipe.head]
    at = 0
    for size in _sizes(recipe.split, len(stream)):
        parts += _chunk(b"IDAT", stream[at : at + size])
        at += size
    parts.append(recipe.tail)
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> tuple[bytes, ...]:
    """Return the parts of a chunk: length, type, content and CRC (section 5.3)."""
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return len(content).to_bytes(4, "big"), kind, content, checksum.to_bytes(4, "big")


def _number(value: object, maximum: int) -> int:
    """Return `value` if it is an integer from 0 to `maximum`. Raises Damaged."""
    if type(value) is not int or not 0 <= value <= maximum:
        raise _bad_recipe("a number out of range")
    return value


def _numbers(value: object, maximum: int, fewest: int, most: int) -> list[int]:
    """Return `value` if it is a list of `fewest` to `most` such integers. Raises Damaged."""
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise _bad_recipe("a list of the wrong length")
    return [_number(item, maximum) for item in value]


def _params(numbers: list[int], record: bytes) -> DeflateParams | Corrections:
    """Return the deflate parameters of a recipe. Raises Damaged."""
    if numbers == [CORRECTIONS]:
        return Corrections(record)
    if len(numbers) != 4 or record:
        raise _bad_recipe("no such deflate engine")
    params = DeflateParams(*numbers)
    if not params.valid():
        raise _bad_recipe("no such deflate parameters")
    return params


def _bad_recipe(reason: str) -> Damaged:
    return Damaged("recipe", reason=reason)
