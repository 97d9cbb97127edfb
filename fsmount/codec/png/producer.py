"""The program that wrote a PNG, if its chunks tell: part of the reason why a file is stored raw."""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.errors import NotExact

_MOST_LETTERS = 40
# Chunks that only these programs write: screenshots and devices of Apple, page size of ImageMagick.
_OWN_CHUNKS = {b"iDOT": "Apple", b"CgBI": "Apple", b"vpAg": "ImageMagick"}
# Size of the IDATs of GDI+ and WIC, which write no name anywhere.
_WINDOWS_IDAT = 65_445


def unknown_encoder(head: bytes, tail: bytes, idat: int) -> NotExact:
    """Return the error for a stream without a short record, with the encoder's name if known.

    No record of the stream is short enough to be worth keeping. `head` and `tail` are the chunks
    before and after the image data. `idat` is the number of bytes of the first IDAT.
    """
    name = producer(head, tail, idat)
    return NotExact("unknown deflate encoder" + (f" ({name})" if name else ""))


def producer(head: bytes, tail: bytes, idat: int) -> str | None:
    """Return the program or system that wrote a PNG, or None if the file does not tell.

    Parameters: see :func:`unknown_encoder`.
    """
    chunks = [*_chunks(head), *_chunks(tail)]
    for kind, content in chunks:
        if kind in (b"tEXt", b"iTXt") and content.startswith(b"Software\0"):
            name = _text(kind, content[len(b"Software\0") :])
            if name:
                return name
    for kind, _ in chunks:
        if kind in _OWN_CHUNKS:
            return _OWN_CHUNKS[kind]
    return "Windows" if idat == _WINDOWS_IDAT else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each whole chunk."""
    at = 0
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _text(kind: bytes, content: bytes) -> str:
    """Return the text of a text chunk after its keyword, in one line; "" if it is compressed.

    See the PNG specification, third edition, section 11.3.3.
    """
    if kind == b"iTXt":
        # Compression flag, method, language, translated keyword, then the text in UTF-8.
        if content[:1] != b"\0":
            return ""
        text = b"\0".join(content[2:].split(b"\0")[2:]).decode("utf-8", "replace")
    else:
        text = content.decode("latin-1")
    words = "".join(letter if letter.isprintable() else " " for letter in text[:200]).split()
    return " ".join(words)[:_MOST_LETTERS]
