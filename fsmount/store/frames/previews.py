"""Jobs that show pictures to people: small or cut copies of them, and what has changed in them.

A preview is made from the frame. It needs no filters, no deflate and no PNG decoder, so it takes a
fraction of the time of the exact file. It is never written to a store.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from fsmount.codec.png.colours import rgba
from fsmount.codec.png.recipe import Recipe
from fsmount.codec.png.samples import Frame, SampleLayout
from fsmount.errors import Damaged
from fsmount.store.frames import jobs
from fsmount.store.frames.changes import Mask, Rectangle, rectangles
from fsmount.store.frames.layers import Done, JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.packs.location import Location

# Formats of files that are not stored as frames. Pillow runs other programs for some formats.
_FORMATS = ("PNG", "JPEG", "WEBP")
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for a file that is no picture, or a damaged one."""
_SIGNATURE_SIZE = (32, 18)
# The tag of EXIF that says how to turn a picture: by a quarter if it is above 4.
_ORIENTATION = 274
_WHITE = (255, 255, 255)


class View(NamedTuple):
    """What a preview shows.

    width : largest width in pixels.
    height : largest height in pixels; 0 for any.
    box : the part of the picture, as x, y, width and height in its pixels; None for all of it.
    quality : of the JPEG, 1 to 95.
    """

    width: int
    height: int = 0
    box: Rectangle | None = None
    quality: int = 85


class Preview(NamedTuple):
    """A JPEG, and width and height of the whole picture that it is made from."""

    data: bytes
    width: int
    height: int


def preview(target: Location, places: Sequence[Location], view: View, loan: Loan) -> Done[Preview]:
    """Make a preview of a frame. `places` has the other entries that it needs.

    Raises :class:`Damaged`.
    """
    layers = JobLayers(loan)
    reader = Reader([*places, target], jobs.memory_for(loan.streams_bytes), layers)
    return Done(_small(Image.fromarray(_pixels(target, reader)), view), layers.made())


def signature(target: Location, places: Sequence[Location], loan: Loan) -> Done[bytes]:
    """Return the colours of a frame in 32 x 18 places: 1,728 bytes.

    `places` as in :func:`preview`. Raises :class:`Damaged`.
    """
    layers = JobLayers(loan)
    reader = Reader([*places, target], jobs.memory_for(loan.streams_bytes), layers)
    image = _opaque(Image.fromarray(_pixels(target, reader)))
    return Done(image.resize(_SIGNATURE_SIZE, Image.Resampling.BOX).tobytes(), layers.made())


def changes(
    target: Location, before: Location, places: Sequence[Location], loan: Loan
) -> Done[list[Rectangle]]:
    """Return which rectangles of a frame differ from the frame `before`.

    The whole frame, if their sizes differ. `places` has the other entries that they need. Raises
    :class:`Damaged`.
    """
    layers = JobLayers(loan)
    reader = Reader([*places, before, target], jobs.memory_for(loan.streams_bytes), layers)
    shown, earlier = _pixels(target, reader), _pixels(before, reader)
    changed: Mask = np.ones(shown.shape[:2], bool)
    if shown.shape == earlier.shape:
        # Four bytes of a pixel are compared at once.
        changed = shown.view(np.uint32)[..., 0] != earlier.view(np.uint32)[..., 0]
    return Done(rectangles(changed), layers.made())


def preview_of_file(data: bytes, view: View) -> Preview:
    """Make a preview of the bytes of a PNG, JPEG or WebP file. Raises :class:`Damaged`."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures, and refuses those that are twice as large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=_FORMATS)
            if view.box is None and opened.format == "JPEG":
                size = (view.width, view.height or view.width)
                turned = opened.getexif().get(_ORIENTATION, 1) > 4
                whole = opened.size[::-1] if turned else opened.size
                opened.draft("RGB", size)
                small = _small(ImageOps.exif_transpose(opened), view)
                return Preview(small.data, *whole)
            return _small(opened, view)
    except UNREADABLE as error:
        raise Damaged("the file", reason=f"it is no picture that can be shown ({error})") from error


def _pixels(target: Location, reader: Reader) -> Frame:
    """Return a frame as RGBA: uint8 (height, width, 4), contiguous. Raises :class:`Damaged`."""
    entry = reader.entry(target.id)
    try:
        found = jobs.decode_picture(entry, reader.record(entry), reader, alone=False)
        reader.keep(target.id, found.own)
        return _first(found.frame, found.recipe)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"object {target.id}", reason=error) from error


def _first(frame: Frame, recipe: Recipe) -> Frame:
    """Return the picture, or the first one of an animation, as RGBA."""
    if recipe.canvas is not None:
        frame = frame[: recipe.canvas[1], : recipe.canvas[0]]
    height, width, channels = frame.shape
    # An alpha channel that is opaque everywhere is not in the frame.
    colour_type = recipe.colour_type - 4 * recipe.opaque
    if channels == 3 and frame.dtype == np.uint8 and colour_type == 2:
        pixels = np.full((height, width, 4), 255, np.uint8)
        pixels[..., :3] = frame
        return pixels
    return rgba(frame, SampleLayout(width, height, colour_type, recipe.bit_depth), recipe.head)


def _small(image: Image.Image, view: View) -> Preview:
    """Cut and scale a picture, and encode it as JPEG."""
    width, height = image.size
    if view.box is not None:
        x, y, wide, high = view.box
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        image = image.crop((x, y, min(x + max(wide, 1), width), min(y + max(high, 1), height)))
    scale = min(1.0, view.width / image.width)
    if view.height:
        scale = min(scale, view.height / image.height)
    if scale < 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        # Half of the pixels are averaged in blocks first, which is quick.
        image = image.convert(_plain(image)).resize(
            size, Image.Resampling.BICUBIC, reducing_gap=1.5
        )
    out = io.BytesIO()
    # Letters keep their colours without subsampling.
    _opaque(image).save(out, "JPEG", quality=view.quality, subsampling=0)
    return Preview(out.getvalue(), width, height)


def _plain(image: Image.Image) -> str:
    """Return a mode of a picture that can be averaged."""
    return "RGBA" if image.has_transparency_data else "RGB"


def _opaque(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, before white where it is transparent."""
    if image.mode == "RGBA":
        if np.asarray(image.getchannel("A")).min() == 255:
            return image.convert("RGB")
        ground = Image.new("RGB", image.size, _WHITE)
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    if image.mode.startswith("I"):
        # Grey of 16 bits. Pillow itself would cut off everything above 255.
        grey = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    return _opaque(image.convert("RGBA")) if image.has_transparency_data else image.convert("RGB")
