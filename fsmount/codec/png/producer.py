"""Who wrote a PNG, where its chunks tell: for the reason of what could not be re-created."""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.errors import NotExact

_MOST_LETTERS = 40
# Chunks that only these write: Apple's screenshots and devices, ImageMagick's page size.
_OWN_CHUNKS = {b"iDOT": "Apple", b"CgBI": "Apple", b"vpAg": "ImageMagick"}
# The size of the IDATs of GDI+ and WIC, which name themselves nowhere.
_WINDOWS_IDAT = 65_445


def unknown_encoder(head: bytes, tail: bytes, idat: int) -> NotExact:
    """The error for a stream of which no record is short enough, with the encoder's name if known.

    `head` and `tail`: the chunks before and behind the image data; `idat`: bytes of the first IDAT.
    """
    name = producer(head, tail, idat)
    return NotExact("unknown deflate encoder" + (f" ({name})" if name else ""))


def producer(head: bytes, tail: bytes, idat: int) -> str | None:
    """The program or system that wrote a PNG, None where nothing in the file tells."""
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
    at = 0
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _text(kind: bytes, content: bytes) -> str:
    """What a text chunk says behind its keyword, in one line; "" if it is compressed."""
    if kind == b"iTXt":
        # Compressed or not, the method, language and translated keyword, then UTF-8.
        if content[:1] != b"\0":
            return ""
        text = b"\0".join(content[2:].split(b"\0")[2:]).decode("utf-8", "replace")
    else:
        text = content.decode("latin-1")
    words = "".join(letter if letter.isprintable() else " " for letter in text[:200]).split()
    return " ".join(words)[:_MOST_LETTERS]
