"""A photo file's bytes -> its upright pixels, shrunk for the canvas, and its head.

What does not decode cleanly is no photo here: :class:`Unfit` says why, and the file is kept as it
is instead.
"""

from __future__ import annotations

import functools
import io
import warnings
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from fsmount.album.canvas import Planes, Rect, place
from fsmount.album.segments import head_of_image, head_of_jpeg, turn
from fsmount.errors import FsmountError

_MOST_PIXELS = 250_000_000  # of which Pillow takes the double
SNIFF_BYTES = 16
_ORIENTATION = 0x0112
_JPEGS = ("JPEG", "MPO")
_FORMATS = (*_JPEGS, "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP")
_JPEG_NAMES = (b".jpg", b".jpeg", b".jpe", b".jfif")
# TIFF files by their name alone: raw files of cameras begin like them, and are no photos here.
_OTHER_NAMES = (
    b".png",
    b".webp",
    b".avif",
    b".heic",
    b".heif",
    b".hif",
    b".tif",
    b".tiff",
    b".bmp",
)
_NAMES = _JPEG_NAMES + _OTHER_NAMES
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


class Unfit(FsmountError):
    """A photo that cannot be put into the video."""

    message = "{detail}"


@dataclass(frozen=True, slots=True)
class Photo:
    """`planes`: luma and whole chroma as they go to the canvas; `size`: of the source as stored;
    `left_out`: bytes of metadata that are not in the head."""

    planes: Planes
    rect: Rect
    size: tuple[int, int]
    orientation: int
    head: bytes
    left_out: int


@functools.cache
def _register_formats() -> None:
    """HEIC where its reader is installed (an extra), and pictures larger than Pillow's bound."""
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def is_photo(name: bytes, start: bytes) -> bool:
    """Whether a file is meant to be a photo we might decode, by its name or first SNIFF_BYTES."""
    if name.lower().endswith(_NAMES):
        return True
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")):
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def shown_name(name: bytes) -> bytes:
    """The name a photo is served under: with .jpg added where its type changes."""
    if name.lower().endswith(_JPEG_NAMES) or len(name) + 4 > 255:
        return name
    return name + b".jpg"


def read(data: bytes, box: int) -> Photo:
    """Decode a whole photo; raises :class:`Unfit`."""
    _register_formats()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return _read(image, data, box)
    except Unfit:
        raise
    except UnidentifiedImageError:
        raise Unfit("it is no picture that can be read here") from None
    # Pillow's plugins raise what comes to them on damaged files.
    except Exception as error:
        raise Unfit(f"it does not decode cleanly ({error})") from error


def _read(image: Image.Image, data: bytes, box: int) -> Photo:
    if image.format not in _FORMATS:
        raise Unfit(f"{image.format} files are not taken for photos")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise Unfit("it holds more than one picture")
    if image.format not in _JPEGS:
        # Some are turned upright by this, and say so.
        image.load()
    size = image.size
    profile = image.info.get("icc_profile")
    rgb = isinstance(profile, bytes) and profile[16:20] == b"RGB "
    if image.format in _JPEGS:
        head, orientation, left_out = head_of_jpeg(data, rgb_profile=rgb)
    else:
        head, orientation = head_of_image(image, rgb_profile=rgb), _orientation(image)
        left_out = 0
    rect = place(*(size if orientation < 5 else size[::-1]), box)
    lying = (rect.width, rect.height) if orientation < 5 else (rect.height, rect.width)
    # Lets the JPEG decoder halve what is more than twice as large.
    image.draft(None, lying)
    small = _rgb(image, profile).resize(lying, Image.Resampling.BICUBIC)
    upright = turn(small, orientation)
    y, cb, cr = (np.asarray(band) for band in upright.convert("YCbCr").split())
    return Photo((y, cb, cr), rect, size, orientation, head, left_out)


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _rgb(image: Image.Image, profile: object) -> Image.Image:
    """8-bit RGB; what is transparent lies on black."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip at 255 instead of scaling.
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray((wide >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "CMYK" and isinstance(profile, bytes):
        with suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            turned = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if turned is not None:
                return turned
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear).convert("RGB")
    return image.convert("RGB")
