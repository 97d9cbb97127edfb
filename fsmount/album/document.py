"""The XML of an album: what exiftool said of each photo, and what is ours (namespace ``fsm``).

docs/album-format.md lists every element. The file is read in one pass that keeps only ours; heads,
the largest part, stay in the file until one is asked for.
"""

from __future__ import annotations

import base64
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from fsmount.album.canvas import Rect
from fsmount.album.tags import escaped
from fsmount.errors import AlbumUnsupported, Damaged, NoAlbum

FORMAT = 1
NAMESPACE = "urn:fsmount:album"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SNIFF = 4096
_MARK = NAMESPACE.encode()
# Where a class has a field called bytes.
_Name = bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What holds for a whole album. `video` and `files` are names beside the XML, b"" for none."""

    video: bytes
    video_bytes: int
    video_sha256: str
    files: bytes
    codec: str
    grade: int
    box: int
    jpeg_quality: int
    floor: float
    bursts: bool
    extradata: bytes
    made_by: str
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo. Times in ns, sizes in bytes, rectangle and `source_size` in pixels.

    `name` is the source's, `shown` the served file's. `frame` is its number (and second), `key`
    the number of the frame where its group starts, `grade` what it was coded with,
    `left_out_bytes` metadata that is not in the head.
    """

    name: bytes
    shown: bytes
    frame: int
    key: int
    rect: Rect
    source_size: tuple[int, int]
    bytes: int
    mtime_ns: int
    mode: int
    sha256: str
    orientation: int
    grade: int
    ssim: float
    psnr: float
    offset: int
    packet_bytes: int
    packet_sha256: str
    served_bytes: int
    served_sha256: str
    head_bytes: int
    left_out_bytes: int


@dataclass(frozen=True, slots=True)
class Other:
    """A file of the folder that is no photo; `kept`: verbatim beside the video, else left out.

    `stored` is its name there, if the filesystem did not take its own.
    """

    name: bytes
    bytes: int
    mtime_ns: int
    mode: int
    sha256: str
    kept: bool
    reason: str
    stored: _Name | None = None


def stored_name(other: Other) -> bytes:
    """The name that a file is kept under."""
    return other.name if other.stored is None else other.stored


@dataclass
class Contents:
    """A whole XML, but for heads and descriptions: `spans` says where they stand in the file."""

    header: Header
    photos: list[Entry] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    heads: list[tuple[int, int]] = field(default_factory=list)


# -- writing


def _tag(name: str) -> str:
    """video_bytes -> VideoBytes"""
    return "".join(part.capitalize() for part in name.split("_"))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def _elements(record: object, kind: str) -> bytes:
    """The elements of a record. Names that XML cannot hold are base64, and say so."""
    lines = [b" <fsm:Kind>%s</fsm:Kind>" % kind.encode()]
    for column in fields(record):  # type: ignore[arg-type]
        value = getattr(record, column.name)
        if value is None:
            continue
        tag = _tag(column.name).encode()
        if isinstance(value, bytes):
            kind_of, text = _plain(value, always=column.name == "extradata")
            lines.append(b" <fsm:%s%s>%s</fsm:%s>" % (tag, kind_of, text, tag))
        else:
            lines.append(b" <fsm:%s>%s</fsm:%s>" % (tag, escaped(_text(value)), tag))
    return b"\n".join(lines)


def _plain(value: bytes, *, always: bool) -> tuple[bytes, bytes]:
    """(attribute, text) for bytes: as they are where XML keeps them so, else base64."""
    try:
        text = value.decode()
        safe = not always and not re.search(
            r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|^\s|\s$", text
        )
    except UnicodeDecodeError:
        safe = False
    if safe:
        return b"", escaped(text)
    return b" rdf:datatype='http://www.w3.org/2001/XMLSchema#base64Binary'", base64.b64encode(value)


def described(description: bytes, entry: Entry, head: bytes) -> bytes:
    """A photo's description by exiftool with our elements in it."""
    packed = base64.b64encode(gzip.compress(head, 9, mtime=0))
    start = description.index(b">")
    opened = description[:start] + b"\n  xmlns:fsm='%s'" % _MARK + description[start:]
    minutes, seconds = divmod(entry.frame, 60)
    time = b"%d:%02d:%02d" % (*divmod(minutes, 60), seconds)
    ours = _elements(entry, "photo")
    ours += b"\n <fsm:Time>%s</fsm:Time>\n <fsm:Head>%s</fsm:Head>\n" % (time, packed)
    return opened.removesuffix(b"</rdf:Description>") + ours + b"</rdf:Description>\n"


def start_of(header: Header) -> bytes:
    """The beginning of the file, up to the first photo."""
    return (
        b"<?xml version='1.0' encoding='UTF-8'?>\n"
        b"<!-- A photo album of fsmount: frames are in the video, photo by photo, one a second.\n"
        b"     docs/album-format.md says how to get everything back with ffmpeg and exiftool. -->\n"
        b"<rdf:RDF xmlns:rdf='%s'>\n" % _RDF.encode() + _own(header, "album", header.video)
    )


def _own(record: object, kind: str, about: bytes) -> bytes:
    name = escaped(about.decode(errors="replace"))
    start = b"\n<rdf:Description rdf:about='%s'\n  xmlns:fsm='%s'>\n" % (name, _MARK)
    return start + _elements(record, kind) + b"\n</rdf:Description>\n"


def end_of(others: Iterable[Other]) -> Iterator[bytes]:
    """The rest of the file, behind the last photo."""
    for other in others:
        yield _own(other, "file", other.name)
    yield b"\n</rdf:RDF>\n"


# -- reading


def is_album(path: Path) -> bool:
    """Whether a file is the XML of an album."""
    try:
        if path.suffix != ".xml" or not path.is_file():
            return False
        with path.open("rb") as file:
            return _MARK in file.read(_SNIFF)
    except OSError:
        return False


class _Reader:
    """Handlers of the parser; keeps our elements of one description at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser = expat.ParserCreate("UTF-8", " ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data
        self._values: dict[str, Any] = {}
        self._text: list[str] | None = None
        self._base64 = False
        self._span = self._head = 0
        self.contents: Contents | None = None

    def run(self, file: BinaryIO) -> Contents:
        try:
            self._parser.ParseFile(file)
        except expat.ExpatError as error:
            raise Damaged(self._path, reason=f"it is no well-formed XML ({error})") from error
        except (KeyError, ValueError, TypeError) as error:
            raise Damaged(
                self._path, reason=f"an entry cannot be understood ({error!r})"
            ) from error
        if self.contents is None:
            raise NoAlbum(self._path)
        photos = self.contents.photos
        if any(not 0 <= one.key <= one.frame == at for at, one in enumerate(photos)):
            raise Damaged(self._path, reason="its photos are not in the order of their frames")
        return self.contents

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, tag = name.rpartition(" ")
        if space == _RDF and tag == "Description":
            self._values, self._span = {}, self._parser.CurrentByteIndex
        elif space == NAMESPACE:
            self._base64 = f"{_RDF} datatype" in attributes
            if tag == "Head":
                self._head = self._parser.CurrentByteIndex
            else:
                self._text = []

    def _data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        space, _, tag = name.rpartition(" ")
        if space == NAMESPACE:
            if tag == "Head":
                self._values[tag] = (self._head, self._parser.CurrentByteIndex)
            elif self._text is not None:
                text = "".join(self._text)
                self._values[tag] = base64.b64decode(text) if self._base64 else text
                self._text = None
        elif space == _RDF and tag == "Description" and self._values:
            self._record(self._values)

    def _record(self, values: dict[str, Any]) -> None:
        kind = values.get("Kind")
        if kind == "album":
            version = int(values["Format"])
            if version != FORMAT:
                raise AlbumUnsupported(self._path, version=version, supported=FORMAT)
            self.contents = Contents(_header(values))
        elif self.contents is None:
            raise NoAlbum(self._path)
        elif kind == "photo":
            self.contents.photos.append(_entry(values))
            self.contents.heads.append(values["Head"])
            # The end tag is part of it.
            end = self._parser.CurrentByteIndex + len(b"</rdf:Description>")
            self.contents.spans.append((self._span, end))
        elif kind == "file":
            self.contents.others.append(_other(values))


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _truth(text: str) -> bool:
    return {"True": True, "False": False}[text]


def _converted(kind: type[Any], values: dict[str, Any], how: dict[str, Any]) -> Any:
    """A record from texts: `how` says what to do with the fields that are no plain text."""
    found = {}
    for column in fields(kind):
        if column.default is None and _tag(column.name) not in values:
            continue
        value = values[_tag(column.name)]
        found[column.name] = how[column.name](value) if column.name in how else value
    return kind(**found)


def _numbers(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, int)


_HEADER = _numbers("video_bytes", "grade", "box", "jpeg_quality", "format") | {
    **dict.fromkeys(("video", "files", "extradata"), _bytes),
    "floor": float,
    "bursts": _truth,
}
_ENTRY = _numbers(
    *("frame", "key", "bytes", "mtime_ns", "mode", "orientation", "grade", "offset"),
    *("packet_bytes", "served_bytes", "head_bytes", "left_out_bytes"),
) | {
    **dict.fromkeys(("name", "shown"), _bytes),
    "rect": lambda text: Rect(*map(int, text.split())),
    "source_size": lambda text: tuple(map(int, text.split())),
    "ssim": float,
    "psnr": float,
}
_OTHER = _numbers("bytes", "mtime_ns", "mode") | {
    **dict.fromkeys(("name", "stored"), _bytes),
    "kept": _truth,
}


def _check_names(*names: bytes) -> None:
    """Raise ValueError unless each names a file in one folder, and nothing elsewhere."""
    for name in names:
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise ValueError(f"{name!r} is no name of a file")


def _header(values: dict[str, Any]) -> Header:
    header: Header = _converted(Header, values, _HEADER)
    _check_names(*filter(None, (header.video, header.files)))
    return header


def _entry(values: dict[str, Any]) -> Entry:
    entry: Entry = _converted(Entry, values, _ENTRY)
    _check_names(entry.name, entry.shown)
    return entry


def _other(values: dict[str, Any]) -> Other:
    other: Other = _converted(Other, values, _OTHER)
    _check_names(other.name, stored_name(other))
    return other


def read(path: Path, fd: int | None = None) -> Contents:
    """What the XML at `path` says (`fd`: the same file, open already).

    Raises :class:`NoAlbum`, :class:`Damaged`, :class:`AlbumUnsupported`, OSError.
    """
    reader = _Reader(path)
    with path.open("rb") if fd is None else open(fd, "rb", closefd=False) as file:
        return reader.run(file)


def head_at(fd: int, span: tuple[int, int], entry: Entry) -> bytes:
    """The head of a photo, from the open XML; raises :class:`Damaged`."""
    start, end = span
    element = os.pread(fd, end - start, start)
    try:
        head = gzip.decompress(base64.b64decode(element[element.index(b">") + 1 :]))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise Damaged(
            os.fsdecode(entry.name), reason=f"its head does not unpack ({error})"
        ) from error
    if len(head) != entry.head_bytes:
        raise Damaged(os.fsdecode(entry.name), reason="its head has another length than recorded")
    return head
