"""Reads the header of a JPEG XL file (ISO/IEC 18181-1, annexes A and D).

fsmount reads it without a library. So it knows that a size is acceptable before any library gets
the file, and it asks every library for the same image.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsmount.errors import Damaged

_SIGNATURE = b"\xff\x0a"
_BOX_FILE = b"\0\0\0\x0cJXL "
_MOST = 8192  # bytes of a header: the names of extra channels are its only long part
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
_GREY, _ALPHA, _SPOT, _MOSAIC = 1, 0, 2, 5  # colour space; types of extra channels


@dataclass(frozen=True, slots=True)
class Header:
    """Width and height in pixels; number of colour channels and of extra channels; bits per sample.

    `alpha_bits` is 0 if there is no alpha channel.
    """

    height: int
    width: int
    colours: int
    extra: int
    bits: int
    alpha_bits: int


def codestream(data: bytes) -> bytes:
    """Return a file without the container around it (ISO/IEC 18181-2); b"" if it has no codestream.

    Joins a codestream that the container splits into parts.
    """
    if not data.startswith(_BOX_FILE):
        return data
    at, parts = 0, []
    while at + 8 <= len(data):
        size, kind, body = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        end = at + size if size else len(data)
        if kind == b"jxlc":
            return data[body:end]
        if kind == b"jxlp":
            parts.append(data[body + 4 : end])
        if end < body:
            break
        at = end
    return b"".join(parts)


def header(data: bytes) -> Header:
    """Read the header of a file, with or without container.

    Raises Damaged if the file is not JPEG XL, and for pictures that no screenshot is: with samples
    that are not integers, with a preview (which no encoder makes), or with an orientation that
    turns or mirrors them (imagecodecs applies it, jxlpy does not).
    """
    stream = codestream(data)
    if not stream.startswith(_SIGNATURE):
        raise Damaged("JPEG XL image", reason="its signature is wrong")
    bits = _Bits(stream[2:_MOST])
    height, width = _size(bits)
    if bits.flag():  # all_default: 8 bits, colours, no extra channels
        return Header(height, width, 3, 0, 8, 0)
    if bits.flag():
        if bits.take(3):
            raise Damaged("JPEG XL image", reason="its orientation turns or mirrors it")
        if bits.flag():
            _size(bits)
        if bits.flag():
            raise Damaged("JPEG XL image", reason="it has a preview")
        if bits.flag():
            _skip_animation(bits)
    depth = _depth(bits)
    bits.flag()  # modular_16bit_buffers: whether 16 bits suffice for buffers of a decoder
    extra = bits.number((0, 0), (1, 0), (2, 4), (1, 12))
    alphas = [alpha for _ in range(extra) if (alpha := _extra_channel(bits))]
    bits.flag()  # xyb_encoded: a decoder converts XYB to the colours of the next field
    colours = 3
    if not bits.flag():  # all_default: sRGB
        bits.flag()  # want_icc: an ICC profile follows
        colours = 1 if _enumerated(bits) == _GREY else 3
    return Header(height, width, colours, extra, depth, alphas[0] if alphas else 0)


class _Bits:
    """A reader of bits, the lowest bit of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits. Raises Damaged at the end."""
        self._left -= count
        if self._left < 0:
            raise Damaged("JPEG XL image", reason="its head is cut off")
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value

    def flag(self) -> bool:
        """Return the next bit."""
        return self.take(1) == 1

    def number(self, *forms: tuple[int, int]) -> int:
        """Read a U32 field: two bits choose a form (offset, number of further bits)."""
        offset, count = forms[self.take(2)]
        return offset + self.take(count)


def _size(bits: _Bits) -> tuple[int, int]:
    """Read a SizeHeader. Returns height and width."""
    small = bits.flag()

    def side() -> int:
        if small:
            return 8 * (1 + bits.take(5))
        return bits.number((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return height, side()
    over, under = _RATIOS[ratio - 1]
    return height, height * over // under


def _skip_animation(bits: _Bits) -> None:
    """Skip an AnimationHeader."""
    bits.number((100, 0), (1000, 0), (1, 10), (1, 30))
    bits.number((1, 0), (1001, 0), (1, 8), (1, 10))
    bits.number((0, 0), (0, 3), (0, 16), (0, 32))
    bits.flag()


def _depth(bits: _Bits) -> int:
    """Read a BitDepth. Returns bits per sample.

    Raises Damaged for samples that are not integers.
    """
    if bits.flag():
        raise Damaged("JPEG XL image", reason="its samples are not integers")
    return bits.number((8, 0), (10, 0), (12, 0), (1, 6))


def _enumerated(bits: _Bits) -> int:
    """Read an Enum."""
    return bits.number((0, 0), (1, 0), (2, 4), (18, 6))


def _extra_channel(bits: _Bits) -> int:
    """Read an ExtraChannelInfo. Returns the bits of an alpha channel, 0 for any other channel."""
    if bits.flag():
        return 8
    kind = _enumerated(bits)
    depth = _depth(bits)
    bits.number((0, 0), (3, 0), (4, 0), (1, 3))  # dim_shift: how much smaller the channel is
    bits.take(8 * bits.number((0, 0), (0, 4), (16, 5), (48, 10)))  # name
    if kind == _ALPHA:
        bits.flag()
        return depth
    if kind == _SPOT:
        bits.take(64)
    elif kind == _MOSAIC:
        bits.number((1, 0), (0, 2), (3, 4), (19, 8))
    return 0
