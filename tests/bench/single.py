"""Stores each picture by itself, in ways that people use or that compression programs have."""

from __future__ import annotations

import io
import json
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import numpy as np
from PIL import Image

from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import png, scanlines
from fsmount.codec.png.recipe import Recipe
from fsmount.codec.png.samples import SampleLayout
from tests.bench.measure import size_of
from tests.bench.methods import Opener, Pixels, decoded


class EachAlone:
    """One stored file a picture, under the picture's name. `keep` and `give` say how."""

    name: str
    gives: str

    def missing(self) -> str | None:
        return None

    def store(self, files: Sequence[Path], folder: Path) -> None:
        _on_all_cores(_Keep(self, folder), files)

    def size(self, folder: Path) -> int:
        return size_of(folder)

    def read_all(self, folder: Path, out: Path) -> None:
        _on_all_cores(_Give(self, out), sorted(folder.iterdir()))

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        kept = sorted(folder.iterdir())
        yield lambda number: self.give(kept[number].read_bytes())

    def keep(self, data: bytes) -> bytes:
        """The bytes to store for the PNG `data`."""
        raise NotImplementedError

    def give(self, kept: bytes) -> bytes | Pixels:
        """The inverse of :meth:`keep`."""
        raise NotImplementedError


class _Keep:
    def __init__(self, method: EachAlone, folder: Path) -> None:
        self._method, self._folder = method, folder

    def __call__(self, file: Path) -> None:
        (self._folder / file.name).write_bytes(self._method.keep(file.read_bytes()))


class _Give:
    def __init__(self, method: EachAlone, out: Path) -> None:
        self._method, self._out = method, out

    def __call__(self, file: Path) -> None:
        found = self._method.give(file.read_bytes())
        if isinstance(found, bytes):
            (self._out / file.name).write_bytes(found)


def _on_all_cores(work: Callable[[Path], None], files: Sequence[Path]) -> None:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, files, chunksize=4))


class Recompressed(EachAlone):
    """As packPNG and precomp do: the deflate stream is undone, and the scanlines are compressed.

    Neither program is a package of Debian or PyPI. The deflate part here is fsmount's own, so the
    same bytes come out. The scanlines go to xz, as in precomp 0.4.8.
    """

    name = "each alone, as xz"
    gives = "files"

    def keep(self, data: bytes) -> bytes:
        picture = png.parse(data, memory=WorkerMemory())
        _, layout, _ = png.read(data)
        rows = scanlines.write(
            picture.frame, layout, picture.recipe.filters, opaque=picture.recipe.opaque
        )
        blobs = picture.recipe.blobs()
        about = [astuple(layout), picture.recipe.header(), [len(blob) for blob in blobs]]
        head = json.dumps(about).encode()
        plain = b"".join((len(head).to_bytes(4, "little"), head, *blobs, rows))
        return lzma.compress(plain, preset=9)

    def give(self, kept: bytes) -> bytes:
        plain = io.BytesIO(lzma.decompress(kept))
        size, header, lengths = json.loads(plain.read(int.from_bytes(plain.read(4), "little")))
        recipe = Recipe.from_parts(header, [plain.read(length) for length in lengths])
        frame, _ = scanlines.read_all(plain.read(), SampleLayout(*size))
        opaque = frame[..., :-1] if recipe.opaque else frame
        return png.assemble(np.ascontiguousarray(opaque), recipe, memory=WorkerMemory())


class Jpeg(EachAlone):
    """What Dayflow keeps of a screen: a JPEG. It is not lossless."""

    gives = "lossy"

    def __init__(self, quality: int) -> None:
        self.name = f"JPEG, quality {quality}"
        self._quality = quality

    def keep(self, data: bytes) -> bytes:
        out = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(out, "JPEG", quality=self._quality)
        return out.getvalue()

    def give(self, kept: bytes) -> Pixels:
        return decoded(kept)
