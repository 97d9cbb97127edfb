"""The pixels of pictures, and where the store says that each tile comes from.

Everything runs in this process, one picture at a time: no workers. Methods wait for the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsmount.codec.delta import delta
from fsmount.codec.delta.delta import TileLayout
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.recipe import Recipe
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged, FsmountError
from fsmount.lru import Lru
from fsmount.store.frames import jobs, rebuilding
from fsmount.store.frames.layers import LruLayers
from fsmount.store.frames.reader import Reader
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.entries import layout_of, recipe_of
from fsmount.store.packs.location import Location
from fsmount.text.engines import Picture

_LAYERS_BYTES = 192 << 20
_PICTURES_BYTES = 96 << 20
# Larger pictures are not read.
_MOST_PIXELS = 64 << 20


@dataclass(frozen=True)
class Seen:
    """A decoded picture.

    pixels : its colours, RGB.
    signatures : a hash of each tile, uint64 (tile rows, tile columns).
    layout : where each tile comes from; None for a picture that is not coded as tiles.
    """

    pixels: Picture
    signatures: npt.NDArray[np.uint64]
    layout: TileLayout | None


class NoPictureError(FsmountError):
    """A file that cannot be read as a picture, however often it is tried."""

    message = "{detail}"


class Pictures:
    """Decodes pictures of a store, and remembers some."""

    def __init__(self, layout: Layout, index: Index) -> None:
        self._layout = layout
        self._index = index
        self._memory = WorkerMemory()
        self._layers = LruLayers(_LAYERS_BYTES)
        self._seen: Lru[int, Seen] = Lru(_PICTURES_BYTES)

    def get(self, object_id: int) -> Seen:
        """Return the picture that an object shows.

        Raises :class:`Damaged` and OSError, and :class:`NoPictureError` for what is no picture.
        """
        found = self._seen.get(object_id)
        if found is None:
            found = self._decoded(object_id)
            self._seen.put(object_id, found, found.pixels.nbytes + found.signatures.nbytes)
        return found

    def _decoded(self, object_id: int) -> Seen:
        for last_try in (False, True):
            row = self._index.object(object_id)
            places = [self._place(each) for each in self._index.objects(row.needs)]
            try:
                return self._decode(row, places)
            except Damaged:
                # A repack may have moved the entries since the rows were read.
                if last_try:
                    return self._rebuilt(row, places)
        raise AssertionError

    def _decode(self, row: Object, places: list[Location]) -> Seen:
        target = self._place(row)
        if row.is_kept:
            raise NoPictureError("it is too large")
        reader = Reader([*places, target], self._memory, self._layers)
        entry = reader.entry(row.id)
        if not row.has_layer:
            return _seen(_opened(jobs.rendered(entry, reader, row.sha256)), None)
        found = reader.record(entry)
        layout, recipe = layout_of(found), recipe_of(found)
        if layout.shape[0] * layout.shape[1] > _MOST_PIXELS:
            raise NoPictureError("it has too many pixels")
        own = reader.layer(row.id)
        others = {number: reader.layer(number) for number in sorted(layout.copied())}
        frame = delta.compose(layout, own, others)
        pixels = _colours(frame, recipe)
        if pixels is None:
            pixels = _opened(jobs.rendered(entry, reader, row.sha256))
        return _seen(pixels, layout if pixels.shape[:2] == layout.shape[:2] else None)

    def _rebuilt(self, row: Object, places: list[Location]) -> Seen:
        """Decode a picture with the help of the parity of packs. Raises :class:`Damaged`."""
        data, _ = rebuilding.render(self._place(row), places, row.sha256)
        return _seen(_opened(data), None)

    def _place(self, found: Object) -> Location:
        path = str(self._layout.pack(found.pack))
        return Location(found.id, path, found.offset, found.length, found.has_layer)


def _seen(pixels: Picture, layout: TileLayout | None) -> Seen:
    return Seen(pixels, delta.signatures(pixels), layout)


def _colours(frame: Frame, recipe: Recipe) -> Picture | None:
    """Return the samples of a frame as RGB, if they are colours of 8 bits; else None."""
    if frame.dtype != np.uint8 or recipe.bit_depth != 8 or recipe.canvas is not None:
        return None
    if recipe.colour_type in (2, 6):
        return np.ascontiguousarray(frame[..., :3].astype(np.uint8, copy=False))
    if recipe.colour_type in (0, 4):
        return np.repeat(frame[..., :1].astype(np.uint8, copy=False), 3, axis=2)
    return None


def _opened(data: bytes) -> Picture:
    """Decode the bytes of a picture file. Raises :class:`NoPictureError`."""
    try:
        with Image.open(BytesIO(data)) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise NoPictureError("it has too many pixels")
            return np.array(picture.convert("RGB"))
    except NoPictureError:
        raise
    except Exception as error:
        # A decoder of damaged files may raise anything.
        raise NoPictureError(f"it cannot be decoded: {error}") from error
