"""The sequence header of an AV1 stream (AV1 bitstream specification, section 5.5).

Every key packet carries its own sequence header, so a decoder needs no other. Versions of an
encoder write different headers for the same settings: they differ in the level, the decoder's
buffers and the tools that are allowed. This module reads only what must be the same in all of a
video.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEQUENCE_HEADER = 1  # type of a unit (OBU)


class NoHeader(ValueError):
    """The bytes hold no sequence header of the kind that SVT-AV1 writes."""


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What a sequence header says of the pictures.

    ``width`` and ``height`` are the largest sides, in pixels. ``deep`` means 10 bits a sample
    instead of 8. ``primaries``, ``transfer`` and ``matrix`` are the numbers of ITU-T H.273, and
    ``full_range`` is its flag. ``chroma_position`` is the position of the chroma samples.
    ``film_grain`` says whether a decoder adds grain.
    """

    width: int
    height: int
    deep: bool
    primaries: int
    transfer: int
    matrix: int
    full_range: bool
    chroma_position: int
    film_grain: bool


def read_sequence_header(data: bytes) -> SequenceHeader:
    """Read the first sequence header.

    Parameters
    ----------
    data : bytes
        A packet, or extradata: units, or the configuration record of an MP4 file.

    Raises
    ------
    NoHeader
        If there is none, or it is of a kind that no encoder here writes.
    """
    if data[:1] == b"\x81":  # A configuration record. Its first 4 bytes repeat parts of the header.
        data = data[4:]
    at = 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        if not sized:
            break
        at += 1 + extended
        size, shift = 0, 0
        while at < len(data) and shift < 35:
            part = data[at]
            size |= (part & 127) << shift
            at, shift = at + 1, shift + 7
            if part < 128:
                break
        if kind == _SEQUENCE_HEADER:
            return _read(_Bits(data[at : at + size]))
        at += size
    raise NoHeader("no sequence header")


class _Bits:
    """Reads bits, the highest bit of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Read an unsigned number of ``count`` bits; raise NoHeader at the end."""
        self._left -= count
        if self._left < 0:
            raise NoHeader("a sequence header that is cut off")
        return self._bits >> self._left & ((1 << count) - 1)


def _read(bits: _Bits) -> SequenceHeader:
    """Read a sequence header; raise NoHeader if it has parts that no encoder here writes."""
    if bits.take(3):  # not the main profile, which is 4:2:0
        raise NoHeader("another profile")
    bits.take(1)  # a still picture
    reduced = bits.take(1)  # the short header of a still picture
    if reduced:
        bits.take(5)
    else:
        if bits.take(1):
            raise NoHeader("timing, which is the container's")
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:  # level
                bits.take(1)
            if delays and bits.take(1):
                bits.take(4)
    sides = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(sides[0]) + 1, bits.take(sides[1]) + 1
    if not reduced and bits.take(1):
        raise NoHeader("numbered frames")
    bits.take(3)  # large blocks, two filters
    if not reduced:
        bits.take(4)  # kinds of prediction
        order = bits.take(1)
        if order:
            bits.take(2)
        # Screen content, then motion in whole pixels: chosen for each frame, or once for all.
        screen = 2 if bits.take(1) else bits.take(1)
        if screen and not bits.take(1):
            bits.take(1)
        if order:
            bits.take(3)
    bits.take(3)  # filters
    return _colours(bits, width, height)


def _colours(bits: _Bits, width: int, height: int) -> SequenceHeader:
    """Read the rest of a sequence header: colours and film grain."""
    deep = bits.take(1) == 1
    if bits.take(1):
        raise NoHeader("grey pictures")
    primaries, transfer, matrix = 2, 2, 2  # unspecified
    if bits.take(1):
        primaries, transfer, matrix = bits.take(8), bits.take(8), bits.take(8)
    full_range = bits.take(1) == 1
    chroma_position = bits.take(2)
    bits.take(1)  # separate quantisers for the two chroma planes
    film_grain = bits.take(1) == 1
    return SequenceHeader(
        width,
        height,
        deep,
        primaries,
        transfer,
        matrix,
        full_range,
        chroma_position,
        film_grain,
    )
