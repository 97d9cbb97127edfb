"""Synthetic photos like those of cameras: scenes, EXIF with maker notes, bursts."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]

MAKER_TEXT = b"fsmount maker note\0\0"
TAKEN = "2014:07:05 12:34:56"


def scene(seed: int, width: int, height: int) -> Pixels:
    """A picture with soft and sharp parts, shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    layers = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((3, 90), (11, 50), (41, 25), (151, 12)):
        small = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(small[:, :, channel]).resize((width, height), 3)
            layers[:, :, channel] += np.asarray(plane) * strength
    for _ in range(6):
        left, top = rng.integers(0, width), rng.integers(0, height)
        layers[top : top + height // 6, left : left + width // 6] += rng.integers(-80, 80, 3)
    return (layers + 120).clip(0, 255).astype(np.uint8)


def burst(seed: int, count: int, width: int, height: int) -> list[Pixels]:
    """Photos of one scene: the hand trembles, and each photo has new sensor noise."""
    rng = np.random.default_rng(seed)
    wide = scene(seed, width + 40, height + 40).astype(np.float32)
    found = []
    for number in range(count):
        down, right = 20 + int(rng.integers(-4, 5)), 20 + number % 5
        part = wide[down : down + height, right : right + width]
        noisy = part + rng.normal(0, 3, part.shape)
        found.append(noisy.clip(0, 255).astype(np.uint8))
    return found


class _Tiff:
    """A TIFF structure, written from front to back."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.data = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + b"\0" * 4)

    def put(self, content: bytes) -> int:
        """Append at an even offset. Returns the offset."""
        self.data += b"\0" * (len(self.data) & 1)
        self.data += content
        return len(self.data) - len(content)

    def entry(self, tag: int, kind: int, count: int, content: bytes) -> bytes:
        """A directory entry. Content of more than 4 bytes is stored outside it."""
        if len(content) > 4:
            content = struct.pack(self.order + "I", self.put(content))
        return struct.pack(self.order + "HHI", tag, kind, count) + content.ljust(4, b"\0")

    def text(self, tag: int, value: str) -> bytes:
        content = value.encode() + b"\0"
        return self.entry(tag, 2, len(content), content)

    def short(self, tag: int, value: int) -> bytes:
        return self.entry(tag, 3, 1, struct.pack(self.order + "H", value))

    def long(self, tag: int, value: int) -> bytes:
        return self.entry(tag, 4, 1, struct.pack(self.order + "I", value))

    def rational(self, tag: int, *values: tuple[int, int]) -> bytes:
        content = b"".join(struct.pack(self.order + "II", *value) for value in values)
        return self.entry(tag, 5, len(values), content)

    def directory(self, entries: list[bytes], following: int = 0) -> int:
        """Append a directory. Returns its offset."""
        start = struct.pack(self.order + "H", len(entries))
        return self.put(start + b"".join(entries) + struct.pack(self.order + "I", following))


def exif(
    orientation: int = 1,
    *,
    order: str = ">",
    taken: str = TAKEN,
    thumbnail: bytes = b"",
) -> bytes:
    """EXIF of a Canon camera, with a maker note whose offsets count from the TIFF header."""
    tiff = _Tiff(order)
    text = tiff.put(MAKER_TEXT)
    note = struct.pack(order + "HHHII", 1, 6, 2, len(MAKER_TEXT), text) + b"\0" * 4
    details = tiff.directory(
        [
            tiff.rational(0x829A, (1, 125)),
            tiff.rational(0x829D, (28, 10)),
            tiff.text(0x9003, taken),
            tiff.entry(0x927C, 7, len(note), note),
            tiff.entry(0x9286, 7, 16, b"ASCII\0\0\0comment!"),
            tiff.text(0x9291, "50"),
        ]
    )
    place = tiff.directory(
        [
            tiff.text(0x0001, "N"),
            tiff.rational(0x0002, (43, 1), (46, 1), (1234, 100)),
            tiff.text(0x0003, "E"),
            tiff.rational(0x0004, (11, 1), (15, 1), (4321, 100)),
        ]
    )
    second = 0
    if thumbnail:
        at = tiff.put(thumbnail)
        entries = [tiff.short(0x0103, 6), tiff.long(0x0201, at), tiff.long(0x0202, len(thumbnail))]
        second = tiff.directory(entries)
    first = tiff.directory(
        [
            tiff.text(0x010F, "Canon"),
            tiff.text(0x0110, "Canon EOS Test"),
            tiff.short(0x0112, orientation),
            tiff.rational(0x011A, (72, 1)),
            tiff.text(0x0132, taken),
            tiff.long(0x8769, details),
            tiff.long(0x8825, place),
        ],
        second,
    )
    struct.pack_into(order + "I", tiff.data, 4, first)
    return b"Exif\0\0" + bytes(tiff.data)


def jpeg(pixels: Pixels, *, quality: int = 94, **more: object) -> bytes:
    """A JPEG file. `more` goes to Pillow (exif, icc_profile, comment, ...)."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=0, **more)
    return stream.getvalue()


def srgb() -> bytes:
    """An sRGB colour profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def camera(seed: int, width: int = 400, height: int = 300, orientation: int = 1) -> bytes:
    """A photo as a camera writes it: EXIF, maker note, thumbnail, colour profile, comment."""
    pixels = scene(seed, width, height)
    small = jpeg(np.asarray(Image.fromarray(pixels).resize((160, 120))), quality=90)
    tags = exif(orientation, thumbnail=small)
    return jpeg(pixels, exif=tags, icc_profile=srgb(), comment=b"a comment")


def folder(path: Path, count: int, *, width: int = 400, height: int = 300) -> Path:
    """Make a folder of camera photos, IMG_0.JPG and so on. Every second one is rotated by EXIF."""
    path.mkdir(parents=True)
    for number in range(count):
        orientation = (1, 6)[number % 2]
        data = camera(number, width, height, orientation)
        (path / f"IMG_{number}.JPG").write_bytes(data)
    return path
