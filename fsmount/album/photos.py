"""Read a photo file: its upright pixels, shrunk for the canvas, and its head.

A file that does not decode cleanly is no photo here. :class:`Unfit` says why, and the album stores
the file verbatim instead.
"""

from __future__ import annotations

import functools
import io
import warnings
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from fsmount.album.canvas import Planes, Rect, centred_rect
from fsmount.album.segments import head_of_image, head_of_jpeg, rotate_upright
from fsmount.errors import FsmountError

_MAX_PIXELS = 250_000_000  # Pillow refuses pictures of more than twice this.
SNIFF_BYTES = 16
_ORIENTATION = 0x0112
_JPEGS = ("JPEG", "MPO")
_FORMATS = (*_JPEGS, "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP")
_JPEG_NAMES = (b".jpg", b".jpeg", b".jpe", b".jfif")
# A TIFF is recognised by its name alone: raw camera files, which begin like one, do not count.
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
    """A photo that cannot be put into the video. Not an error for the user: the file is kept."""

    message = "{detail}"


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as it goes to the canvas.

    ``planes`` are luma and chroma of the size of ``rect``. ``size`` is the source's (width, height)
    as stored. ``orientation`` is that of EXIF, 1 to 8. ``left_out_bytes`` counts metadata that is
    not in the head.
    """

    planes: Planes
    rect: Rect
    size: tuple[int, int]
    orientation: int
    head: bytes
    left_out_bytes: int


@functools.cache
def _register_formats() -> None:
    """Register HEIC if its optional package is installed, and raise Pillow's limit on pixels."""
    Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def is_photo(name: bytes, start: bytes) -> bool:
    """Return whether a file looks like a photo, by its name or its first ``SNIFF_BYTES``."""
    if name.lower().endswith(_NAMES):
        return True
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")):
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def shown_name(name: bytes) -> bytes:
    """Return the name a photo is served under: with ``.jpg`` added unless it is a JPEG's name."""
    if name.lower().endswith(_JPEG_NAMES) or len(name) + 4 > 255:
        return name
    return name + b".jpg"


def read(data: bytes, box: int) -> Photo:
    """Decode a whole photo file.

    Parameters
    ----------
    data : bytes
        The file.
    box : int
        Side of the canvas, in pixels.

    Raises
    ------
    Unfit
        If the file is no supported photo or does not decode cleanly.
    """
    _register_formats()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return _read(image, data, box)
    except Unfit:
        raise
    except UnidentifiedImageError:
        raise Unfit("it is not a picture of a known format") from None
    # Pillow's plugins raise all kinds of exceptions on damaged files.
    except Exception as error:
        raise Unfit(f"it does not decode cleanly ({error})") from error


def _read(image: Image.Image, data: bytes, box: int) -> Photo:
    """Decode an open image; raise Unfit or anything that Pillow raises."""
    if image.format not in _FORMATS:
        raise Unfit(f"{image.format} files do not count as photos")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise Unfit("it holds more than one picture")
    if image.format not in _JPEGS:
        # Some plugins rotate the image now and report orientation 1.
        image.load()
    size = image.size
    profile = image.info.get("icc_profile")
    rgb = isinstance(profile, bytes) and profile[16:20] == b"RGB "
    if image.format in _JPEGS:
        head, orientation, left_out_bytes = head_of_jpeg(data, rgb_profile=rgb)
    else:
        head, orientation = head_of_image(image, rgb_profile=rgb), _orientation(image)
        left_out_bytes = 0
    rect = centred_rect(*(size if orientation < 5 else size[::-1]), box)
    size_as_stored = (rect.width, rect.height) if orientation < 5 else (rect.height, rect.width)
    # The JPEG decoder may halve an image that is more than twice as large.
    image.draft(None, size_as_stored)
    small = _rgb(image, profile).resize(size_as_stored, Image.Resampling.BICUBIC)
    upright = rotate_upright(small, orientation)
    y, cb, cr = (np.asarray(band) for band in upright.convert("YCbCr").split())
    return Photo((y, cb, cr), rect, size, orientation, head, left_out_bytes)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 if there is none."""
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _rgb(image: Image.Image, profile: object) -> Image.Image:
    """Return the image as 8-bit RGB; transparent pixels lie on black."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip at 255 instead of scaling.
        samples = np.asarray(image).astype(np.uint32)
        return Image.fromarray((samples >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "CMYK" and isinstance(profile, bytes):
        with suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")
    return image.convert("RGB")
