"""Slots: the words that a few pictures of one screen show, as one compressed value.

A slot has the pictures of some minutes. Each word has a rectangle, and the first and the last of
the pictures that show it there. A slot stands for itself: it names nothing in other slots.

The value is a zstd frame. It has columns of numbers, each as the difference to the number before,
with low and high bytes apart, and then all texts (docs/format.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsmount.codec import zstd
from fsmount.errors import Damaged
from fsmount.text.results import Rectangle, Word

Ints = npt.NDArray[np.int64]

_HEAD = struct.Struct("<BIII")
_FORM = 1
_LEVEL, _FAST_LEVEL = 12, 3
_MOST_BYTES = 64 << 20
_MOST_PICTURES = 1 << 16


@dataclass(frozen=True)
class Slot:
    """The words of some pictures of one screen.

    ino, at_us : the pictures in order: inode number, and when it was taken in us since 1970.
    texts : the words. They hold no line feed.
    boxes : their places: int64 (n, 4), x, y, width and height in pixels.
    first, last : int64 (n,): the first and the last picture (by place in `ino`) that shows each.
    carried : bool (n,): whether the next slot's first picture goes on to show the word.
    """

    ino: Ints
    at_us: Ints
    texts: list[str]
    boxes: Ints
    first: Ints
    last: Ints
    carried: npt.NDArray[np.bool_]

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return len(self.ino)

    def place(self, number: int) -> Rectangle:
        """Return the place of a word."""
        return Rectangle(*self.boxes[number].tolist())

    def shown_by(self, picture: int) -> list[int]:
        """Return the numbers of the words that a picture shows."""
        return np.flatnonzero((self.first <= picture) & (picture <= self.last)).tolist()

    def words(self, ino: int) -> list[Word]:
        """Return the words of a picture; none if the slot does not have it."""
        at = np.flatnonzero(self.ino == ino)
        if not len(at):
            return []
        return [Word(self.texts[n], self.place(n)) for n in self.shown_by(int(at[0]))]

    def without(self, gone: Iterable[int]) -> Slot:
        """Return the slot without some pictures, and without the words that only they show."""
        stays = ~np.isin(self.ino, np.fromiter(gone, np.int64))
        # Number of staying pictures before each one.
        before = np.concatenate([[0], np.cumsum(stays)])
        first, last = before[self.first], before[self.last + 1] - 1
        kept = first <= last
        return Slot(
            self.ino[stays],
            self.at_us[stays],
            [text for text, keep in zip(self.texts, kept.tolist(), strict=True) if keep],
            self.boxes[kept],
            first[kept],
            last[kept],
            self.carried[kept],
        )

    def where(self, kept: npt.NDArray[np.bool_]) -> Slot:
        """Return the slot with those of its words for which `kept` (bool, n) is true."""
        texts = [text for text, keep in zip(self.texts, kept.tolist(), strict=True) if keep]
        return Slot(
            self.ino,
            self.at_us,
            texts,
            self.boxes[kept],
            self.first[kept],
            self.last[kept],
            self.carried[kept],
        )


def make(pictures: Sequence[tuple[int, int]], words: Sequence[tuple[Word, int, int, bool]]) -> Slot:
    """Make a slot from pictures (ino, at_us), and words (word, first, last, carried)."""
    table = np.array(pictures, np.int64).reshape(-1, 2)
    spans = np.array([(first, last, on) for _, first, last, on in words], np.int64).reshape(-1, 3)
    boxes = np.array([word.place for word, *_ in words], np.int64).reshape(-1, 4)
    texts = [word.text for word, *_ in words]
    return Slot(
        table[:, 0], table[:, 1], texts, boxes, spans[:, 0], spans[:, 1], spans[:, 2].astype(bool)
    )


def pack(slot: Slot, *, fast: bool = False) -> bytes:
    """Return a slot as bytes. `fast`: with less effort, for a slot that is soon written again."""
    x, y, width, height = slot.boxes.T
    # Words of a line follow each other: what lies between them is a small number.
    ends = np.concatenate([[0], (x + width)[:-1]])
    columns = [
        _deltas(slot.ino),
        _deltas(slot.at_us),
        x - ends,
        _deltas(y),
        width,
        height,
        _deltas(slot.first),
        slot.last - slot.first,
        slot.carried.astype(np.int64),
    ]
    text = "\n".join(slot.texts).encode("utf-8", "replace")
    body = b"".join(_column(each) for each in columns)
    head = _HEAD.pack(_FORM, slot.pictures, len(slot.texts), len(body))
    return zstd.compress(head + body + text, _FAST_LEVEL if fast else _LEVEL)


def unpack(data: bytes) -> Slot:
    """Return the slot of :func:`pack`. Raises :class:`Damaged`."""
    try:
        return _unpacked(zstd.decompress(data, _MOST_BYTES))
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise Damaged("words", reason=error) from error


def _unpacked(plain: bytes) -> Slot:
    form, pictures, words, length = _HEAD.unpack_from(plain)
    if form != _FORM or pictures > _MOST_PICTURES:
        raise Damaged("words", reason=f"form {form} is not known")
    at, end = _HEAD.size, _HEAD.size + length
    columns = []
    for count in (pictures, pictures, *[words] * 7):
        column, at = _read_column(plain, at, count)
        columns.append(column)
    ino, at_us, x, y, width, height, first, span, carried = columns
    texts = plain[end:].decode().split("\n") if words else []
    # x of each word lies behind the end of the word before.
    left = np.cumsum(x + width) - width
    slot = Slot(
        np.cumsum(ino),
        np.cumsum(at_us),
        texts,
        np.stack([left, np.cumsum(y), width, height], axis=1).reshape(-1, 4),
        np.cumsum(first),
        np.cumsum(first) + span,
        carried.astype(bool),
    )
    fits = len(texts) == words and at == end
    if not fits or (words and (slot.first.min() < 0 or slot.last.max() >= pictures)):
        raise Damaged("words", reason="the columns do not fit together")
    return slot


def _deltas(column: Ints) -> Ints:
    return np.diff(column, prepend=0)


def _column(values: Ints) -> bytes:
    """Return numbers as a byte for their width, all lowest bytes, all second bytes and so on."""
    width = 1
    while width < 8 and len(values) and not _fits(values, width):
        width *= 2
    narrow = values.astype(f"<i{width}")
    planes = narrow.view(np.uint8).reshape(-1, width).T
    return bytes([width]) + np.ascontiguousarray(planes).tobytes()


def _fits(values: Ints, width: int) -> bool:
    limit = 1 << (8 * width - 1)
    return bool(-limit <= values.min() and values.max() < limit)


def _read_column(plain: bytes, at: int, count: int) -> tuple[Ints, int]:
    """Return a column of :func:`_column` and the place behind it."""
    width = plain[at]
    if width not in (1, 2, 4, 8):
        raise Damaged("words", reason=f"numbers of {width} bytes")
    planes = np.frombuffer(plain, np.uint8, count * width, at + 1).reshape(width, count)
    values = np.ascontiguousarray(planes.T).view(f"<i{width}").reshape(count)
    return values.astype(np.int64), at + 1 + count * width
