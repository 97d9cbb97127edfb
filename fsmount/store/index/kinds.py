"""The types that the values of a row may have.

SQLite does not check the types of values, and a page checksum does not cover the page number. So
after a misdirected write a query may return rows of another table; their types show it.
"""

from __future__ import annotations

from itertools import product
from types import NoneType

Kind = frozenset[tuple[type, ...]]


_Column = type | tuple[type, ...]


def _kind(*columns: _Column) -> Kind:
    """All allowed rows of types; a column may allow several types."""
    return frozenset(product(*(each if isinstance(each, tuple) else (each,) for each in columns)))


_INODE: tuple[_Column, ...] = (*[int] * 10, (int, NoneType), (int, NoneType), (bytes, NoneType))

INODE = _kind(*_INODE)
CHILD = _kind(int, bytes, *_INODE)
NAMED_FILE = _kind(int, int, bytes, *_INODE)
NAMED_INODE = _kind(bytes, *_INODE)
SIZED_INODE = _kind((int, NoneType), *_INODE)
OBJECT = _kind(int, str, *[int] * 4, bytes, int, bytes, bytes, (str, NoneType), int)
NAME = _kind(int, int, bytes, int)
FOLDER_NAME = _kind(int, int, bytes, int, int)
XATTR = _kind(int, bytes, bytes)
NUMBER, TEXT, BLOB = _kind(int), _kind(str), _kind(bytes)
NUMBER_BLOB, BLOB_NUMBER, TWO_BLOBS = _kind(int, bytes), _kind(bytes, int), _kind(bytes, bytes)
TEXT_NUMBER, THREE_NUMBERS = _kind(str, int), _kind(int, int, int)
FIGURES = _kind(int, int, bytes, *[int] * 4, (int, NoneType), str, int, int)
PICTURE = _kind(int, int, bytes, *[int] * 4)
FOUR_NUMBERS = _kind(int, int, int, int)
TWO_NUMBERS = _kind(int, int)
BLOB_TWO_NUMBERS, SEVEN_NUMBERS = _kind(bytes, int, int), _kind(*[int] * 7)
