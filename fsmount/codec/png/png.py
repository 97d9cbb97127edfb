"""PNG files as a frame and a recipe that together reproduce every byte of the file.

`parse` takes a file apart and proves that `assemble` puts it together again. If it cannot prove
this, it raises NotExact. This module interprets only the parts that exactness needs: IHDR, the zlib
streams in the chunks IDAT and fdAT, and the places of an animation's pictures. The recipe keeps all
other bytes verbatim. Sources: PNG specification, third edition; RFC 1950 for zlib streams.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fsmount.codec.deflate import deflate, engine
from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import animation, filters, samples, scanlines
from fsmount.codec.png.animation import Control
from fsmount.codec.png.producer import unknown_encoder
from fsmount.codec.png.recipe import (
    MAX_FILE,
    MAX_LISTED,
    MAX_PICTURES,
    MAX_SIDE,
    Recipe,
    Split,
    Stream,
    bad_recipe,
)
from fsmount.codec.png.samples import Frame, SampleLayout
from fsmount.errors import Damaged, NotExact

NOT_A_PNG = "not a PNG"
MAX_FRAME = 400 << 20
"""Limit for the bytes of all scanlines, and for the bytes of the unpacked frame."""
MAX_CHUNKS = 1 << 18
"""Limit for the number of chunks examined.

These are the chunks before the first IDAT, IDATs, and the other chunks of an animation.
"""

# These values must never change: PNGs made from a folder of differences keep their bytes.
_CANONICAL = DeflateParams(level=6, strategy=1, mem_level=8, window_bits=15)
_CANONICAL_HEADER = 0x789C
_CANONICAL_SPLIT = 8192

# Bytes of the sequence number of an fdAT.
_NUMBER = 4

# Most bytes that deflate makes of one byte: two bits give at most 258 bytes.
_MOST_INFLATED = 1032

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IDAT_FROM = len(_SIGNATURE) + 25


@dataclass(frozen=True, slots=True)
class Picture:
    """The frame and the recipe of a PNG file."""

    frame: Frame
    recipe: Recipe


class _Run(NamedTuple):
    """The chunks of a zlib stream, one directly after another."""

    layout: SampleLayout
    """That of the picture in the stream."""
    before: int
    """Offset of the bytes between the run before, or IHDR, and the first chunk."""
    at: int
    """Offset of the first chunk."""
    end: int
    """Offset after the last chunk."""
    sizes: list[int]
    """The number of bytes of the stream in each chunk."""
    place: Control | None = None
    """None for IDATs."""


class _Unpacked(NamedTuple):
    """What a zlib stream holds: its header, scanlines, deflate body, and the bytes after that."""

    header: int
    raw: bytes
    body: bytes
    rest: bytes
    checksum: int
    """The Adler-32 of `raw`."""


def parse(
    data: bytes,
    hints: Sequence[DeflateParams] = (),
    *,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> Picture:
    """Take a PNG file apart, so that `assemble(frame, recipe)` equals `data`, byte for byte.

    Tries the deflate parameters in `hints` first, on `threads` threads. `memory` provides earlier
    pictures, and keeps this one. Raises only NotExact: for other files, for damaged PNGs, for
    pictures beyond the limits above, for animations whose chunks are in an unusual order, and for
    deflate streams whose correction record would not be shorter than the stream.
    """
    runs = _runs(data)
    search = _Search(data, runs, hints, threads, memory)
    if len(runs) > 1:
        return _parse_animation(search)
    (run,) = runs
    unpacked = _unpack(data, run)
    frame, opaque, types = scanlines.read(unpacked.raw, run.layout, memory)
    stream = search.identify(run, unpacked)
    recipe = search.recipe([stream], opaque, types)
    # The search has proved the body, and the filters have reproduced its input. Only the bytes
    # around them still need a proof.
    if _file(recipe, [run.layout], [(unpacked.body, unpacked.checksum)]) != data:
        raise NotExact("damaged: chunks do not add up")
    return Picture(frame, recipe)


def _parse_animation(search: _Search) -> Picture:
    """Parse a file with several pictures."""
    canvas, places = search.runs[0].layout, [run.place for run in search.runs if run.place]
    streams, types = [], []

    def pictures() -> Iterator[Frame]:
        for run in search.runs:
            unpacked = _unpack(search.data, run)
            picture, kinds = scanlines.read_all(unpacked.raw, run.layout)
            streams.append(search.identify(run, unpacked))
            types.append(kinds)
            yield picture

    frame, repeated = animation.to_sheet(pictures(), canvas, places)
    opaque = canvas.has_alpha and samples.is_opaque(frame)
    recipe = replace(
        search.recipe(streams, opaque, b"".join(types)),
        canvas=(canvas.width, canvas.height),
        repeated=repeated,
    )
    if opaque:
        frame = samples.drop_alpha(frame)
    if assemble(frame, recipe, threads=search.threads, memory=search.memory) != search.data:
        raise NotExact("damaged: chunks do not add up")
    return Picture(frame, recipe)


class _Search:
    """Finds the recipe of a file; parameters as those of :func:`parse`."""

    def __init__(
        self,
        data: bytes,
        runs: Sequence[_Run],
        hints: Sequence[DeflateParams],
        threads: int,
        memory: WorkerMemory | None,
    ) -> None:
        self.data = data
        self.runs = runs
        self.threads = threads
        self.memory = memory
        self._hints = tuple(hints)
        # The streams of a file are probably made alike.
        self._newest: tuple[DeflateParams, ...] = ()
        self._tail = data[runs[-1].end :]

    def identify(self, run: _Run, unpacked: _Unpacked) -> Stream:
        """Find out how a stream is made. Raises NotExact."""
        params = deflate.search(
            unpacked.raw,
            unpacked.body,
            (*self._newest, *self._hints),
            header=unpacked.header,
            row_bytes=_cut_rows(run.layout),
            threads=self.threads,
            memory=self.memory,
        )
        if params is None:
            head = self.data[_IDAT_FROM : self.runs[0].at]
            raise unknown_encoder(head, self._tail, self.runs[0].sizes[0])
        if isinstance(params, DeflateParams):
            self._newest = (params,)
        before = self.data[run.before : run.at]
        return Stream(before, unpacked.header, params, _split(run.sizes), unpacked.rest[4:])

    def recipe(self, streams: Sequence[Stream], opaque: bool, types: bytes) -> Recipe:
        """Return the recipe of a file with these streams and filter types."""
        layout = self.runs[0].layout
        return Recipe(
            layout.colour_type,
            layout.bit_depth,
            opaque,
            types,
            tuple(streams),
            self._tail,
            layout.interlaced,
        )


def read(data: bytes) -> tuple[Frame, SampleLayout, bytes]:
    """Return the samples of a PNG with all channels, its layout, and its chunks before the IDATs.

    The samples are uint8 or uint16, shape (height, width, channels). The chunks are the bytes
    between IHDR and the first IDAT. This function needs no recipe, so it reads PNGs of any deflate
    encoder. Raises NotExact like `parse`, and for animations.
    """
    run, *_ = runs = _runs(data)
    if len(runs) > 1:
        raise NotExact("animated")
    frame, _ = scanlines.unfiltered(_unpack(data, run).raw, run.layout)
    return frame, run.layout, data[_IDAT_FROM : run.at]


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
        bytes((filters.UP,)) * height,
        (Stream(head, _CANONICAL_HEADER, _CANONICAL, _CANONICAL_SPLIT, b""),),
        b"".join(_chunk(b"IEND", b"")),
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
    layouts, pictures = _taken_apart(frame, recipe)
    at, bodies = 0, []
    for picture, layout, stream in zip(pictures, layouts, recipe.streams, strict=True):
        types = recipe.filters[at : at + layout.rows]
        at += len(types)
        raw = scanlines.write(picture, layout, types, opaque=recipe.opaque)
        try:
            body = deflate.deflate(
                raw, stream.params, row_bytes=_cut_rows(layout), threads=threads, memory=memory
            )
        except ValueError as error:
            raise bad_recipe(str(error)) from error
        bodies.append((body, engine.adler32(raw)))
    return _file(recipe, layouts, bodies)


def _cut_rows(layout: SampleLayout) -> int:
    """Return the bytes of a scanline, at which several threads may cut them; 0 if they differ."""
    return 0 if layout.interlaced else layout.row_bytes + 1


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
        int.from_bytes(fields[:4], "big"),
        int.from_bytes(fields[4:8], "big"),
        fields[9],
        fields[8],
        bool(fields[12]),
    )
    if layout.bit_depth not in samples.DEPTHS.get(layout.colour_type, ()):
        raise NotExact("damaged: no such colour type and bit depth")
    if not layout.width or not layout.height or fields[10] or fields[11] or fields[12] > 1:
        raise NotExact("damaged: IHDR")
    if max(layout.width, layout.height) > MAX_SIDE:
        raise NotExact("too large")
    if max(layout.scanline_bytes, layout.frame_bytes) > MAX_FRAME:
        raise NotExact("too large")
    return layout


def _runs(data: bytes) -> list[_Run]:
    """Find the zlib streams of a file, and check all limits of their pictures. Raises NotExact."""
    layout = _read_layout(data)
    at, is_animated = _first_idat(data)
    sizes, end = _chunks(data, at, b"IDAT")
    runs = [_Run(layout, _IDAT_FROM, at, end, sizes)]
    if is_animated:
        try:
            _find_further(data, runs)
        except ValueError as error:
            raise NotExact(f"animated: {error}") from None
    layouts = [run.layout for run in runs]
    if len(runs) > 1:
        sheet = animation.sheet_of(layouts)
        lines = sum(one.scanline_bytes for one in layouts)
        if sheet.height > MAX_SIDE or max(lines, sheet.frame_bytes) > MAX_FRAME:
            raise NotExact("too large")
    for run in runs:
        if run.layout.scanline_bytes > _MOST_INFLATED * sum(run.sizes):
            raise NotExact("damaged: truncated")
    return runs


def _first_idat(data: bytes) -> tuple[int, bool]:
    """Return the offset of the first IDAT, and whether an acTL is before it. Raises NotExact."""
    at, is_animated = _IDAT_FROM, False
    for _ in range(MAX_CHUNKS):
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":
            return at, is_animated
        if kind == b"IEND" or len(kind) < 4:
            raise NotExact("damaged: no image data")
        is_animated |= kind == b"acTL"
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise NotExact("too many chunks")


def _find_further(data: bytes, runs: list[_Run]) -> None:
    """Append the runs of fdATs to `runs`, which has the IDATs.

    Raises NotExact, and ValueError if the chunks are not in the usual order.
    """
    at, count = runs[0].end, len(runs[0].sizes)
    while count <= MAX_CHUNKS:
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or len(kind) < 4:
            return
        if kind != b"fdAT":
            at += 12 + int.from_bytes(data[at : at + 4], "big")
            count += 1
            continue
        before = runs[-1].end
        place = animation.control(data[before:at])
        sizes, end = _chunks(data, at, kind)
        count += len(sizes)
        if min(sizes) < _NUMBER:
            raise NotExact("damaged: fdAT")
        sizes = [size - _NUMBER for size in sizes]
        runs.append(_Run(animation.layout_of(runs[0].layout, place), before, at, end, sizes, place))
        if len(runs) > MAX_PICTURES:
            raise NotExact("too many pictures")
        at = end
    raise NotExact("too many chunks")


def _chunks(data: bytes, at: int, kind: bytes) -> tuple[list[int], int]:
    """Return the sizes of the chunks of a kind from `at` on, and the offset after the last of them.

    A chunk that the end of the file cuts off counts as bytes after them: reading the zlib stream
    shows whether it is missing. Raises NotExact.
    """
    sizes: list[int] = []
    while data[at + 4 : at + 8] == kind:
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + size
        if end > len(data):
            break
        checksum = zlib.crc32(memoryview(data)[at + 4 : end - 4])
        if data[end - 4 : end] != checksum.to_bytes(4, "big"):
            raise NotExact(f"damaged: {kind.decode()} checksum")
        sizes.append(size)
        if len(sizes) > MAX_CHUNKS:
            raise NotExact("too many chunks")
        at = end
    if not sizes:
        raise NotExact("damaged: truncated")
    return sizes, at


def _stream(data: bytes, run: _Run) -> bytes:
    """Join the contents of the chunks of a run. Raises NotExact for wrong sequence numbers."""
    view = memoryview(data)
    at, parts = run.at + 8, []
    for number, size in enumerate(run.sizes, start=1):
        if run.place:
            if view[at : at + _NUMBER] != _sequence(run.place, number):
                raise NotExact("animated: sequence numbers")
            at += _NUMBER
        parts.append(view[at : at + size])
        at += size + 12
    return b"".join(parts)


def _sequence(place: Control, number: int) -> bytes:
    """Return the sequence number of an fdAT, the `number`-th after its fcTL, from 1 on."""
    return (place.sequence + number & 0xFFFFFFFF).to_bytes(_NUMBER, "big")


def _unpack(data: bytes, run: _Run) -> _Unpacked:
    """Unpack an intact zlib stream. Raises NotExact."""
    stream = _stream(data, run)
    if len(stream) < 2 or stream[0] & 15 != zlib.DEFLATED or stream[1] & 32:
        raise NotExact("damaged: zlib header")
    raw, body, rest = _inflate(stream, run.layout.scanline_bytes)
    checksum = engine.adler32(raw)
    if rest[:4] != checksum.to_bytes(4, "big"):
        raise NotExact("damaged: zlib checksum")
    return _Unpacked(int.from_bytes(stream[:2], "big"), raw, body, rest, checksum)


def _inflate(stream: bytes, expected: int) -> tuple[bytes, bytes, bytes]:
    """Return the raw bytes, the deflate body, and the bytes after it. Raises NotExact.

    Never holds more than `expected` + 1 raw bytes.
    """
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
            raise bad_recipe("IDAT sizes do not add up")
        return split
    if not split or split >= total:
        return (total,)
    whole, rest = divmod(total, split)
    if whole > MAX_CHUNKS:
        raise bad_recipe("too many IDAT chunks")
    return [split] * whole + [rest] * (rest > 0)


def _taken_apart(frame: Frame, recipe: Recipe) -> tuple[list[SampleLayout], Iterator[Frame]]:
    """Return the layouts of the pictures in a frame, and the pictures.

    Each picture is valid until the next one is asked for. Raises Damaged if frame and recipe do not
    fit.
    """
    if frame.ndim != 3:
        raise Damaged("frame", reason="not an array of three dimensions")
    height, width, channels = frame.shape
    width, height = recipe.canvas or (width, height)
    canvas = SampleLayout(width, height, recipe.colour_type, recipe.bit_depth, recipe.interlaced)
    if channels + recipe.opaque != canvas.channels or frame.dtype != canvas.dtype:
        raise Damaged("frame", reason="channels or sample type are not those of the recipe")
    if not 0 < width <= MAX_SIDE or not height or not frame.size:
        raise Damaged("frame", reason="size is not that of the recipe")
    if recipe.bit_depth < 8 and frame.max() > canvas.maximum:
        raise Damaged("frame", reason="samples beyond the bit depth")
    try:
        places = [animation.control(stream.before) for stream in recipe.streams[1:]]
        layouts = [canvas, *(animation.layout_of(canvas, place) for place in places)]
        pictures = iter((frame,))
        if recipe.canvas:
            pictures = animation.from_sheet(frame, canvas, places, recipe.repeated)
    except ValueError as error:
        raise bad_recipe(str(error)) from error
    if sum(one.rows for one in layouts) != len(recipe.filters):
        raise Damaged("frame", reason="size is not that of the recipe")
    return layouts, pictures


def _file(
    recipe: Recipe, layouts: Sequence[SampleLayout], bodies: Sequence[tuple[bytes, int]]
) -> bytes:
    """Assemble the whole file around deflate bodies.

    Each body has with it the Adler-32 of its input.
    """
    layout = layouts[0]
    fields = layout.width.to_bytes(4, "big") + layout.height.to_bytes(4, "big")
    fields += bytes((layout.bit_depth, layout.colour_type, 0, 0, layout.interlaced))
    parts = [_SIGNATURE, *_chunk(b"IHDR", fields)]
    for stream, (body, checksum) in zip(recipe.streams, bodies, strict=True):
        header = stream.zlib_header.to_bytes(2, "big")
        content = b"".join((header, body, checksum.to_bytes(4, "big"), stream.behind))
        parts.append(stream.before)
        place = None if stream is recipe.streams[0] else animation.control(stream.before)
        at = 0
        for number, size in enumerate(_sizes(stream.split, len(content)), start=1):
            piece = content[at : at + size]
            if place:
                piece = _sequence(place, number) + piece
            parts += _chunk(b"fdAT" if place else b"IDAT", piece)
            at += size
    parts.append(recipe.tail)
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> tuple[bytes, ...]:
    """Return the parts of a chunk: length, type, content and CRC (section 5.3)."""
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return len(content).to_bytes(4, "big"), kind, content, checksum.to_bytes(4, "big")
