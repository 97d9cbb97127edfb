"""Slots: the words that a few pictures of one screen show, as one compressed value.

A slot has the pictures of some minutes. Each word has a rectangle, and the first and the last of
the pictures that show it there. A slot stands for itself: it names nothing in other slots.

The value has columns of numbers, each as the difference to what is likely there, with low and high
bytes apart, and all texts. Each is a zstd frame of its own, because what they hold has little in
common (docs/format.md). A search reads only some of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from fsmount.codec import zstd
from fsmount.errors import Damaged
from fsmount.text.results import Rectangle, Word
from fsmount.text.tokens import folded, tokens_of_folded

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]

_FORM = 2
# Form, number of pictures, number of words; then the length of each part.
_HEAD = struct.Struct("<BII")
_PARTS = ("ino", "at_us", "first", "span", "carried", "x", "y", "width", "height", "text")
_LENGTHS = struct.Struct(f"<{len(_PARTS)}I")
_OF_PICTURES = 2
_LEVEL, _FAST_LEVEL = 19, 3
# Widths of letters are in 1/16 of a pixel.
_LETTER_BITS = 4
_MOST_BYTES = 64 << 20
_MOST = 1 << 24


class Slot:
    """The words of some pictures of one screen.

    ino, at_us : the pictures in order: inode number, and when it was taken in us since 1970.
    texts : the words. They hold no line feed.
    boxes : their places: int64 (n, 4), x, y, width and height in pixels.
    first, last : int64 (n,): the first and the last picture (by place in `ino`) that shows each.
    carried : bool (n,): whether the next slot's first picture goes on to show the word.

    A slot from :func:`unpack` reads them when they are first asked for, which may raise
    :class:`Damaged`.
    """

    def __init__(
        self,
        ino: Ints,
        at_us: Ints,
        texts: list[str],
        boxes: Ints,
        first: Ints,
        last: Ints,
        carried: Bools,
    ) -> None:
        self.pictures = len(ino)
        self.count = len(texts)
        self._parts: dict[str, bytes] = {}
        self.ino, self.at_us, self.texts, self.boxes = ino, at_us, texts, boxes
        self.first, self.last, self.carried = first, last, carried

    @classmethod
    def stored(cls, pictures: int, count: int, parts: dict[str, bytes]) -> Self:
        """Return a slot of so many pictures and words, from its compressed parts."""
        slot = cls.__new__(cls)
        slot.pictures, slot.count, slot._parts = pictures, count, parts
        return slot

    def _part(self, name: str) -> bytes:
        return zstd.decompress(self._parts[name], _MOST_BYTES)

    def _column(self, name: str) -> Ints:
        count = self.pictures if name in _PARTS[:_OF_PICTURES] else self.count
        return _read_column(self._part(name), count)

    @cached_property
    def ino(self) -> Ints:  # noqa: D102
        return np.cumsum(self._column("ino"))

    @cached_property
    def at_us(self) -> Ints:  # noqa: D102
        return np.cumsum(self._column("at_us"))

    @cached_property
    def first(self) -> Ints:  # noqa: D102
        found = np.cumsum(self._column("first"))
        if len(found) and not 0 <= found.min() <= found.max() < self.pictures:
            raise Damaged("words", reason="a word of no picture")
        return found

    @cached_property
    def last(self) -> Ints:  # noqa: D102
        found = self.first + self._column("span")
        if len(found) and not ((found >= self.first) & (found < self.pictures)).all():
            raise Damaged("words", reason="a word of no picture")
        return found

    @cached_property
    def carried(self) -> Bools:  # noqa: D102
        return self._column("carried").astype(bool)

    @cached_property
    def boxes(self) -> Ints:  # noqa: D102
        x, y, height = (self._column(name) for name in ("x", "y", "height"))
        letter, *_ = widths = _read_column(self._part("width"), self.count + 1)
        width = widths[1:] + (_letters(self.text, self.count) * letter >> _LETTER_BITS)
        # x of each word lies behind the end of the word before.
        left = np.cumsum(x + width) - width
        return np.stack([left, np.cumsum(y) - height, width, height]).T

    @cached_property
    def text(self) -> str:
        """All words, with a line feed between two."""
        if "text" not in self._parts:
            return "\n".join(self.texts)
        try:
            found = self._part("text").decode()
        except UnicodeDecodeError as error:
            raise Damaged("words", reason=error) from error
        if found.count("\n") != max(0, self.count - 1):
            raise Damaged("words", reason="another number of words")
        return found

    @cached_property
    def texts(self) -> list[str]:  # noqa: D102
        return self.text.split("\n") if self.count else []

    @cached_property
    def plain(self) -> str:
        """All words folded (:func:`folded`), with a line feed before and behind each."""
        return "\n" + folded(self.text) + "\n"

    @cached_property
    def letters(self) -> Codes:
        """The letters of `plain`: see :func:`_codes`."""
        return _codes(self.plain)

    @cached_property
    def starts(self) -> Ints:
        """Where each word begins in `plain`: int64 (n,)."""
        return np.flatnonzero(self.letters == ord("\n"))[:-1] + 1

    def tokens(self, number: int) -> list[str]:
        """Return the tokens of a word. It does not split the text of all words."""
        begin = int(self.starts[number])
        return tokens_of_folded(self.plain[begin : self.plain.index("\n", begin)])

    def place(self, number: int) -> Rectangle:
        """Return the place of a word."""
        return Rectangle(*self.boxes[number].tolist())

    def shown_by(self, picture: int) -> list[int]:
        """Return the numbers of the words that a picture shows."""
        found: list[int] = np.flatnonzero((self.first <= picture) & (picture <= self.last)).tolist()
        return found

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
        left = Slot(
            self.ino[stays], self.at_us[stays], self.texts, self.boxes, first, last, self.carried
        )
        return left.where(first <= last)

    def going_on_in(self, after: Slot) -> Slot:
        """Return the slot with those words carried that the next slot, `after`, goes on to show."""
        number = np.flatnonzero(after.first == 0).tolist()
        there = {(after.texts[n], after.place(n)) for n in number}
        carried = self.carried.copy()
        for n in np.flatnonzero(carried).tolist():
            carried[n] = (self.texts[n], self.place(n)) in there
        return Slot(self.ino, self.at_us, self.texts, self.boxes, self.first, self.last, carried)

    def where(self, kept: Bools) -> Slot:
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
    # Words of a line follow each other: what lies between them is a small number. They stand on
    # one line, so their lower edges differ by less than the upper ones.
    ends = np.concatenate([[0], (x + width)[:-1]])
    # Most letters of a screen are about as wide as others.
    letters = _letters("\n".join(slot.texts), slot.count)
    letter = int(np.median((width << _LETTER_BITS) // letters)) if slot.count else 0
    columns = {
        "ino": _deltas(slot.ino),
        "at_us": _deltas(slot.at_us),
        "first": _deltas(slot.first),
        "span": slot.last - slot.first,
        "carried": slot.carried.astype(np.int64),
        "x": x - ends,
        "y": _deltas(y + height),
        "width": np.concatenate([[letter], width - (letters * letter >> _LETTER_BITS)]),
        "height": height,
    }
    parts = {name: _column(column) for name, column in columns.items()}
    parts["text"] = "\n".join(slot.texts).encode("utf-8", "replace")
    frames = [zstd.compress(parts[name], _FAST_LEVEL if fast else _LEVEL) for name in _PARTS]
    head = _HEAD.pack(_FORM, slot.pictures, slot.count) + _LENGTHS.pack(*map(len, frames))
    return head + b"".join(frames)


def unpack(data: bytes) -> Slot:
    """Return the slot of :func:`pack`. Raises :class:`Damaged`."""
    try:
        form, pictures, count = _HEAD.unpack_from(data)
        lengths = _LENGTHS.unpack_from(data, _HEAD.size)
    except struct.error as error:
        raise Damaged("words", reason=error) from error
    if form != _FORM or max(pictures, count) > _MOST:
        raise Damaged("words", reason=f"form {form} is not known")
    at = _HEAD.size + _LENGTHS.size
    if at + sum(lengths) != len(data):
        raise Damaged("words", reason="its parts have other lengths")
    parts = {}
    for name, length in zip(_PARTS, lengths, strict=True):
        parts[name] = data[at : at + length]
        at += length
    return Slot.stored(pictures, count, parts)


def _codes(text: str) -> Codes:
    """Return the letters of a text: uint8 (m,) of ASCII, else uint32 (m,) of Unicode."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _letters(text: str, count: int) -> Ints:
    """Return the number of letters of each of `count` words with line feeds between them.

    int64, at least 1.
    """
    feeds = np.flatnonzero(_codes(text) == ord("\n"))
    edges = np.concatenate([[-1], feeds, [len(text)]])
    found: Ints = np.maximum(1, np.diff(edges) - 1)[:count]
    return found


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


def _read_column(plain: bytes, count: int) -> Ints:
    """Return the column of :func:`_column` that has `count` numbers. Raises :class:`Damaged`."""
    width = plain[0] if plain else 0
    if width not in (1, 2, 4, 8) or len(plain) != 1 + count * width:
        raise Damaged("words", reason="a column of another length")
    if width == 1:
        return np.frombuffer(plain, np.int8, count, 1).astype(np.int64)
    planes = np.frombuffer(plain, np.uint8, count * width, 1).reshape(width, count)
    values = np.ascontiguousarray(planes.T).view(f"<i{width}").reshape(count)
    return values.astype(np.int64)
