"""Own tiles of an object <-> the one or two images that hold them.

A screen mixes what programs draw (few colours, exact repeats) with photographs. The two are coded
apart: drawn tiles as they are, by zstd (:mod:`fsmount.codec.images.pam`), and photographs as one
image (:mod:`fsmount.codec.images.images`). docs/architecture.md, section 7, has the measurements.

An **image of tiles** is the frame without the tile rows and tile columns that hold none of the
tiles; the places of other tiles are zero. So its layout follows from the places of the tiles.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.delta import delta
from fsmount.codec.delta.delta import TILE
from fsmount.codec.images import images, pam
from fsmount.codec.png.samples import Frame
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged

PAM = ".pam.zst"
NOTHING = ".nil"

Mask = NDArray[np.bool_]

# Of the 480 pairs of neighbouring pixels in a tile, a photograph has at least _PAIRS whose samples
# differ by 1 to _SLIGHTLY. More than 96 colours in a tile, another rule, made the large images of
# three desktops 4 to 25 % larger.
_SLIGHTLY = 12
_PAIRS = 100
# A second image costs about as much as this beside its data: its headers, and the list of its
# tiles. So there are at least _FEW tiles in each of two images.
_SECOND_BYTES = 120
_FEW = 3
LARGE = 256
"""Number of own tiles from which an image is large, and has no dictionary."""
# Drawn tiles that keep more than this share of their bytes are something like noise.
_NOISE = 0.25
_QUICK, _SMALL, _REPACK = 7, 16, 19  # efforts of zstd


@dataclass(frozen=True, slots=True)
class Photographs:
    """The second image of an object: those of its own tiles that are photographs.

    suffix, data : format of the file (".webp" or ".jxl"), and the file.
    tiles : which of the own tiles it holds, as :func:`pack_bits` packs them.
    """

    suffix: str
    data: bytes
    tiles: bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """The images that hold the own tiles of an object.

    suffix, data : format of the first image, and its file. ".nil" and b"" if there is no own tile.
    photographs : the second image, or None.
    """

    suffix: str = NOTHING
    data: bytes = b""
    photographs: Photographs | None = None

    @property
    def cost(self) -> int:
        """Bytes that the payload takes in a pack, without the headers of its first image."""
        second = self.photographs
        if second is None:
            return len(self.data)
        return len(self.data) + len(second.data) + len(second.tiles) + _SECOND_BYTES


@dataclass(frozen=True, slots=True)
class Own:
    """The own tiles of an object, as they are coded.

    tiles : uint8 or uint16 (n, TILE, TILE, channels), row by row.
    places : which tiles of the frame they are; bool, shape (tile rows, tile columns).
    shape : (height, width, channels) of the frame.
    """

    tiles: Frame
    places: Mask
    shape: tuple[int, int, int]

    def image(self) -> Frame:
        """Return the image of tiles. There must be a tile."""
        return delta.arrange(self.tiles, self.places, self.shape)

    def some(self, which: Mask) -> Own:
        """Return the tiles in `which`: bool, shape (n,)."""
        return Own(self.tiles[which], _placed(self.places, which), self.shape)


def photographs(tiles: Frame) -> Mask:
    """Return which tiles are photographs: bool, shape (n,). `tiles` is uint8 (n, TILE, TILE, ...).

    Smooth, but not flat, is what a photograph is, and what zstd codes badly.
    """
    count = np.zeros(len(tiles), np.int64)
    for one, other in ((tiles[:, :, 1:], tiles[:, :, :-1]), (tiles[:, 1:], tiles[:, :-1])):
        apart = np.maximum(one, other) - np.minimum(one, other)
        # Equal samples are 0 apart, which becomes 255 here.
        slightly = apart - np.uint8(1) < np.uint8(_SLIGHTLY)
        count += np.count_nonzero(slightly.reshape(len(tiles), -1), axis=1)
    return np.asarray(count >= _PAIRS * tiles.shape[3])


def encode(own: Own, dictionary: Dictionary | None = None, *, fast: bool = True) -> Payload:
    """Encode own tiles in little time: for ingest.

    `dictionary` is one for drawn tiles. `fast` is that of
    :func:`~fsmount.codec.images.images.encode`.
    """
    if not len(own.tiles):
        return Payload()
    if own.tiles.dtype != np.uint8:
        return Payload(*images.encode(own.image(), fast=fast))
    is_large = len(own.tiles) >= LARGE
    level = _QUICK if is_large and fast else _SMALL

    def drawn(some: Own) -> tuple[str, bytes]:
        return PAM, pam.encode(some.tiles, level, dictionary)

    found = _apart(own, drawn, lambda image: images.encode(image, fast=fast))
    looks_poor = len(found.data) > _NOISE * own.tiles.nbytes
    if found.suffix == PAM and (looks_poor or not fast or not is_large):
        whole = Payload(*images.encode(own.image(), fast=fast))
        found = min(found, whole, key=lambda payload: payload.cost)
    return found


def encode_again(own: Own, dictionary: Dictionary | None = None) -> Payload:
    """Encode own tiles as :func:`encode`, in seconds, and smaller: for `repack`."""
    if not len(own.tiles) or own.tiles.dtype != np.uint8:
        return Payload(*images.encode_again(own.image())) if len(own.tiles) else Payload()

    def drawn(some: Own) -> tuple[str, bytes]:
        strip = pam.encode(some.tiles, _REPACK, dictionary)
        image = images.encode_again(some.image(), "drawn")
        return min((PAM, strip), image, key=lambda file: len(file[1]))

    apart = _apart(own, drawn, images.encode_again)
    if apart.photographs is None:
        return apart
    whole = Payload(*images.encode_again(own.image(), "mixed"))
    return min(apart, whole, key=lambda payload: payload.cost)


def _apart(
    own: Own,
    drawn: Callable[[Own], tuple[str, bytes]],
    photograph: Callable[[Frame], tuple[str, bytes]],
) -> Payload:
    """Encode photographs and drawn tiles apart, or all in one way if there are few of one kind."""
    which = photographs(own.tiles)
    count = int(np.count_nonzero(which))
    if len(which) - count < min(_FEW, count):
        return Payload(*photograph(own.image()))
    if count < _FEW:
        return Payload(*drawn(own))
    second = Photographs(*photograph(own.some(which).image()), pack_bits(which))
    return Payload(*drawn(own.some(~which)), second)


def decode(
    payload: Payload,
    places: Mask,
    shape: tuple[int, int, int],
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16],
    dictionary: Dictionary | None = None,
) -> Frame:
    """Decode the own tiles: `dtype`, shape (n, TILE, TILE, channels), row by row.

    `places`, `shape` and `dtype` are those of :class:`Own`. `dictionary` is the one that the tiles
    were encoded with. Raises :class:`Damaged` if the images are anything else than own tiles at
    these places.
    """
    out = np.empty((np.count_nonzero(places), TILE, TILE, shape[2]), dtype)
    parts = [(payload.suffix, payload.data, np.ones(len(out), np.bool_))]
    if payload.photographs is not None:
        second = payload.photographs
        which = unpack_bits(second.tiles, len(out))
        parts = [
            (payload.suffix, payload.data, ~which),
            (second.suffix, second.data, which),
        ]
    for suffix, data, which in parts:
        if which.any() == (suffix == NOTHING):
            raise Damaged("payload", reason=f"{np.count_nonzero(which)} own tiles in a {suffix}")
        if suffix == PAM:
            out[which] = pam.decode(data, (np.count_nonzero(which), *out.shape[1:]), dictionary)
        elif suffix != NOTHING:
            image = images.decode(suffix, data, shape[2])
            if image.dtype != dtype:
                raise Damaged("payload", reason=f"an image of {image.dtype}")
            out[which] = delta.arranged(image, _placed(places, which), shape)
    return out


def _placed(places: Mask, which: Mask) -> Mask:
    """Return the places of those of the tiles at `places` that are in `which` (row by row)."""
    some = np.zeros_like(places)
    some[places] = which
    return some


def pack_bits(bits: Mask) -> bytes:
    """Pack bits: a zlib stream of bytes of 8 bits each, the first in the highest bit."""
    return zlib.compress(np.packbits(bits).tobytes(), 9)


def unpack_bits(data: bytes, count: int) -> Mask:
    """Unpack `count` bits that :func:`pack_bits` packed. Raises :class:`Damaged` for other data."""
    length = -(-count // 8)
    coder = zlib.decompressobj()
    try:
        plain = coder.decompress(data, length + 1)
    except zlib.error as error:
        raise Damaged("list of photographs", reason=error) from error
    if not coder.eof or coder.unused_data or len(plain) != length:
        raise Damaged("list of photographs", reason="of another length")
    bits = np.unpackbits(np.frombuffer(plain, np.uint8)).astype(np.bool_)
    if bits[count:].any():
        raise Damaged("list of photographs", reason="it names tiles that there are not")
    return bits[:count]
