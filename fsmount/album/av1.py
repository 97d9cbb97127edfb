"""What an AV1 stream says of its pictures (AV1 bitstream specification, section 5.5).

A key packet carries a sequence header of its own, so a decoder needs no other. What versions of an
encoder write there differs: level, buffers of the decoder, tools that are allowed. What has to be
one in all of a video is only what is read here.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEQUENCE_HEADER = 1  # type of a unit (OBU)


class NoHeader(ValueError):
    """Bytes that hold no sequence header of the kind SVT-AV1 writes."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Largest sides in pixels; 10 bits a sample or 8; of colour what ITU-T H.273 calls so; where
    samples of chroma stand; whether grain is added."""

    width: int
    height: int
    deep: bool
    primaries: int
    curve: int
    matrix: int
    full_range: bool
    place: int
    grain: bool


def pictures(data: bytes) -> Pictures:
    """Of the first sequence header among units: a packet, or extradata in either of its forms.

    Raises :class:`NoHeader` where there is none, or a kind that no encoder here writes.
    """
    if data[:1] == b"\x81":  # an MP4 file's configuration record, whose first 4 bytes repeat some
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
    """Bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise NoHeader("a sequence header that is cut off")
        return self._bits >> self._left & ((1 << count) - 1)


def _read(bits: _Bits) -> Pictures:
    if bits.take(3):  # the main profile, which is 4:2:0
        raise NoHeader("another profile")
    bits.take(1)  # a still picture
    reduced = bits.take(1)  # for a still picture alone, of which less is said
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
        bits.take(4)  # ways to predict
        order = bits.take(1)
        if order:
            bits.take(2)
        # Screen content, and whether motion is in whole pixels: by each frame, or for all.
        screen = 2 if bits.take(1) else bits.take(1)
        if screen and not bits.take(1):
            bits.take(1)
        if order:
            bits.take(3)
    bits.take(3)  # filters
    return _colours(bits, width, height)


def _colours(bits: _Bits, width: int, height: int) -> Pictures:
    deep = bits.take(1) == 1
    if bits.take(1):
        raise NoHeader("grey pictures")
    primaries, curve, matrix = 2, 2, 2  # not said
    if bits.take(1):
        primaries, curve, matrix = bits.take(8), bits.take(8), bits.take(8)
    full_range = bits.take(1) == 1
    place = bits.take(2)
    bits.take(1)  # quantisers of their own for both kinds of chroma
    grain = bits.take(1) == 1
    return Pictures(width, height, deep, primaries, curve, matrix, full_range, place, grain)
