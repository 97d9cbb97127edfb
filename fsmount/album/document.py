"""The XML of an album: the output of exiftool for each photo, and our elements (prefix ``fsm``).

docs/album-format.md lists every element. The reader makes one pass and keeps only our elements.
Heads are the largest part; they stay in the file until somebody asks for one.

The names of the fields of :class:`AlbumHeader`, :class:`PhotoRecord` and :class:`OtherFile` are the
names of the elements (``video_bytes`` is ``fsm:VideoBytes``), so they are part of the format.
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
from fsmount.album.tags import xml_escaped
from fsmount.errors import AlbumUnsupported, Damaged, NoAlbum

FORMAT = 1
NAMESPACE = "urn:fsmount:album"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SNIFF_BYTES = 4096
_NAMESPACE_BYTES = NAMESPACE.encode()
# `bytes`, for a class that has a field of that name.
_Name = bytes


@dataclass(frozen=True, slots=True)
class AlbumHeader:
    """The data of a whole album.

    ``video`` and ``files`` are names beside the XML, b"" if there is none. ``video_bytes`` is in
    bytes, ``box`` in pixels, ``floor`` an SSIM. ``extradata`` is what a decoder must know before
    the first packet.
    """

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
class PhotoRecord:
    """The data of one photo: times in ns, sizes in bytes, ``rect`` and ``source_size`` in pixels.

    ``name`` is the name of the source, ``shown`` that of the served file. ``frame`` is the number
    of its frame, and its second in the video. ``key`` is the frame at which its group starts.
    ``grade`` is the grade that it was encoded with. ``left_out_bytes`` counts metadata that is not
    in the head.
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
class OtherFile:
    """A file of the folder that is not in the video.

    ``kept`` says that it is stored verbatim; else it was left out. ``reason`` says why it is not in
    the video. ``stored`` is the name of its copy if the filesystem refused its own.
    """

    name: bytes
    bytes: int
    mtime_ns: int
    mode: int
    sha256: str
    kept: bool
    reason: str
    stored: _Name | None = None


def stored_name(other: OtherFile) -> bytes:
    """Return the name of a file's copy in the folder of verbatim files."""
    return other.name if other.stored is None else other.stored


@dataclass
class AlbumContents:
    """All of an XML except for descriptions and heads.

    ``description_spans`` and ``head_spans`` hold the (start, end) of those in the file, in bytes,
    for each photo.
    """

    header: AlbumHeader
    photos: list[PhotoRecord] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)
    description_spans: list[tuple[int, int]] = field(default_factory=list)
    head_spans: list[tuple[int, int]] = field(default_factory=list)


# -- writing


def _tag(name: str) -> str:
    """Return an element's name: ``video_bytes`` gives ``VideoBytes``."""
    return "".join(part.capitalize() for part in name.split("_"))


def _text(value: object) -> str:
    """Return a value as text; a tuple as numbers with spaces between."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def _elements(record: object, kind: str) -> bytes:
    """Return the elements of a record. A value that XML cannot hold is marked as base64."""
    lines = [b" <fsm:Kind>%s</fsm:Kind>" % kind.encode()]
    for column in fields(record):  # type: ignore[arg-type]
        value = getattr(record, column.name)
        if value is None:
            continue
        tag = _tag(column.name).encode()
        if isinstance(value, bytes):
            attribute, text = _attribute_and_text(value, always=column.name == "extradata")
            lines.append(b" <fsm:%s%s>%s</fsm:%s>" % (tag, attribute, text, tag))
        else:
            lines.append(b" <fsm:%s>%s</fsm:%s>" % (tag, xml_escaped(_text(value)), tag))
    return b"\n".join(lines)


def _attribute_and_text(value: bytes, *, always: bool) -> tuple[bytes, bytes]:
    """Return (attribute, text) of a value: plain text if XML keeps it unchanged, else base64."""
    try:
        text = value.decode()
        is_plain = not always and not re.search(
            r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|^\s|\s$", text
        )
    except UnicodeDecodeError:
        is_plain = False
    if is_plain:
        return b"", xml_escaped(text)
    return b" rdf:datatype='http://www.w3.org/2001/XMLSchema#base64Binary'", base64.b64encode(value)


def photo_element(description: bytes, record: PhotoRecord, head: bytes) -> bytes:
    """Return a photo's element: the description by exiftool with our elements added.

    Parameters
    ----------
    description : bytes
        A whole ``rdf:Description`` element (:meth:`fsmount.album.tags.ExifTool.describe`).
    record : PhotoRecord
        Our data of the photo.
    head : bytes
        The served file up to its pixels; it is stored compressed.
    """
    packed = base64.b64encode(gzip.compress(head, 9, mtime=0))
    start = description.index(b">")
    opened = description[:start] + b"\n  xmlns:fsm='%s'" % _NAMESPACE_BYTES + description[start:]
    minutes, seconds = divmod(record.frame, 60)
    time = b"%d:%02d:%02d" % (*divmod(minutes, 60), seconds)
    ours = _elements(record, "photo")
    ours += b"\n <fsm:Time>%s</fsm:Time>\n <fsm:Head>%s</fsm:Head>\n" % (time, packed)
    return opened.removesuffix(b"</rdf:Description>") + ours + b"</rdf:Description>\n"


def start_of(header: AlbumHeader) -> bytes:
    """Return the beginning of the XML, up to the first photo."""
    return (
        b"<?xml version='1.0' encoding='UTF-8'?>\n"
        b"<!-- A photo album of fsmount. The video has one frame a second, one frame a photo.\n"
        b"     docs/album-format.md tells how to restore all photos with ffmpeg and exiftool. -->\n"
        b"<rdf:RDF xmlns:rdf='%s'>\n" % _RDF.encode() + _own_element(header, "album", header.video)
    )


def _own_element(record: object, kind: str, about: bytes) -> bytes:
    """Return an element that holds only our data."""
    name = xml_escaped(about.decode(errors="replace"))
    start = b"\n<rdf:Description rdf:about='%s'\n  xmlns:fsm='%s'>\n" % (name, _NAMESPACE_BYTES)
    return start + _elements(record, kind) + b"\n</rdf:Description>\n"


def end_of(others: Iterable[OtherFile]) -> Iterator[bytes]:
    """Yield the rest of the XML after the last photo, in pieces."""
    for other in others:
        yield _own_element(other, "file", other.name)
    yield b"\n</rdf:RDF>\n"


# -- reading


def is_album(path: Path) -> bool:
    """Return whether a file is the XML of an album, by its suffix and its first 4 KiB."""
    try:
        if path.suffix != ".xml" or not path.is_file():
            return False
        with path.open("rb") as file:
            return _NAMESPACE_BYTES in file.read(_SNIFF_BYTES)
    except OSError:
        return False


class _Reader:
    """The handlers of the XML parser; they hold the elements of one description at a time."""

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
        self._description_start = self._head_start = 0
        self.contents: AlbumContents | None = None

    def run(self, file: BinaryIO) -> AlbumContents:
        """Parse the file; see :func:`read` for the errors."""
        try:
            self._parser.ParseFile(file)
        except expat.ExpatError as error:
            raise Damaged(self._path, reason=f"it is not well-formed XML ({error})") from error
        except (KeyError, ValueError, TypeError) as error:
            raise Damaged(self._path, reason=f"a record is malformed ({error!r})") from error
        if self.contents is None:
            raise NoAlbum(self._path)
        photos = self.contents.photos
        if any(not 0 <= one.key <= one.frame == at for at, one in enumerate(photos)):
            raise Damaged(self._path, reason="its photos are not in the order of their frames")
        return self.contents

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, tag = name.rpartition(" ")
        if space == _RDF and tag == "Description":
            self._values, self._description_start = {}, self._parser.CurrentByteIndex
        elif space == NAMESPACE:
            self._base64 = f"{_RDF} datatype" in attributes
            if tag == "Head":
                self._head_start = self._parser.CurrentByteIndex
            else:
                self._text = []

    def _data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        space, _, tag = name.rpartition(" ")
        if space == NAMESPACE:
            if tag == "Head":
                self._values[tag] = (self._head_start, self._parser.CurrentByteIndex)
            elif self._text is not None:
                text = "".join(self._text)
                self._values[tag] = base64.b64decode(text) if self._base64 else text
                self._text = None
        elif space == _RDF and tag == "Description" and self._values:
            self._add_record(self._values)

    def _add_record(self, values: dict[str, Any]) -> None:
        kind = values.get("Kind")
        if kind == "album":
            version = int(values["Format"])
            if version != FORMAT:
                raise AlbumUnsupported(self._path, version=version, supported=FORMAT)
            self.contents = AlbumContents(_header(values))
        elif self.contents is None:
            raise NoAlbum(self._path)
        elif kind == "photo":
            self.contents.photos.append(_photo_record(values))
            self.contents.head_spans.append(values["Head"])
            # The parser is before the end tag, which belongs to the span.
            end = self._parser.CurrentByteIndex + len(b"</rdf:Description>")
            self.contents.description_spans.append((self._description_start, end))
        elif kind == "file":
            self.contents.others.append(_other_file(values))


def _bytes(value: str | bytes) -> bytes:
    """Return the bytes of a value, which was plain text or base64."""
    return value if isinstance(value, bytes) else value.encode()


def _parse_bool(text: str) -> bool:
    """Return the truth value of its text."""
    return {"True": True, "False": False}[text]


def _convert(kind: type[Any], values: dict[str, Any], how: dict[str, Any]) -> Any:
    """Make a record from texts; ``how`` converts the fields that are not text."""
    found = {}
    for column in fields(kind):
        if column.default is None and _tag(column.name) not in values:
            continue
        value = values[_tag(column.name)]
        found[column.name] = how[column.name](value) if column.name in how else value
    return kind(**found)


def _ints(*names: str) -> dict[str, Any]:
    """Return the converters of fields that are integers."""
    return dict.fromkeys(names, int)


_HEADER_FIELDS = _ints("video_bytes", "grade", "box", "jpeg_quality", "format") | {
    **dict.fromkeys(("video", "files", "extradata"), _bytes),
    "floor": float,
    "bursts": _parse_bool,
}
_PHOTO_FIELDS = _ints(
    *("frame", "key", "bytes", "mtime_ns", "mode", "orientation", "grade", "offset"),
    *("packet_bytes", "served_bytes", "head_bytes", "left_out_bytes"),
) | {
    **dict.fromkeys(("name", "shown"), _bytes),
    "rect": lambda text: Rect(*map(int, text.split())),
    "source_size": lambda text: tuple(map(int, text.split())),
    "ssim": float,
    "psnr": float,
}
_OTHER_FIELDS = _ints("bytes", "mtime_ns", "mode") | {
    **dict.fromkeys(("name", "stored"), _bytes),
    "kept": _parse_bool,
}


def _check_names(*names: bytes) -> None:
    """Raise ValueError unless each name is that of a file in one folder, without a path."""
    for name in names:
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise ValueError(f"{name!r} is not the name of a file")


def _header(values: dict[str, Any]) -> AlbumHeader:
    """Return the album's record from its elements."""
    header: AlbumHeader = _convert(AlbumHeader, values, _HEADER_FIELDS)
    _check_names(*filter(None, (header.video, header.files)))
    return header


def _photo_record(values: dict[str, Any]) -> PhotoRecord:
    """Return a photo's record from its elements."""
    record: PhotoRecord = _convert(PhotoRecord, values, _PHOTO_FIELDS)
    _check_names(record.name, record.shown)
    return record


def _other_file(values: dict[str, Any]) -> OtherFile:
    """Return another file's record from its elements."""
    other: OtherFile = _convert(OtherFile, values, _OTHER_FIELDS)
    _check_names(other.name, stored_name(other))
    return other


def read(path: Path, fd: int | None = None) -> AlbumContents:
    """Read the XML of an album, without heads and descriptions.

    Parameters
    ----------
    path : Path
        The XML.
    fd : int, optional
        A descriptor of the same file; it stays open.

    Raises
    ------
    NoAlbum
        If the file is XML of something else.
    Damaged
        If the XML or a record in it is malformed.
    AlbumUnsupported
        If a newer fsmount made the album.
    OSError
        If the file cannot be read.
    """
    reader = _Reader(path)
    with path.open("rb") if fd is None else open(fd, "rb", closefd=False) as file:
        return reader.run(file)


def head_at(fd: int, span: tuple[int, int], record: PhotoRecord) -> bytes:
    """Read the head of a photo from the open XML.

    Parameters
    ----------
    fd : int
        A descriptor of the XML.
    span : tuple of int
        The photo's entry in :attr:`AlbumContents.head_spans`.
    record : PhotoRecord
        The photo.

    Raises
    ------
    Damaged
        If the head does not unpack to its recorded length.
    """
    start, end = span
    element = os.pread(fd, end - start, start)
    try:
        head = gzip.decompress(base64.b64decode(element[element.index(b">") + 1 :]))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise Damaged(
            os.fsdecode(record.name), reason=f"its head does not unpack ({error})"
        ) from error
    if len(head) != record.head_bytes:
        raise Damaged(os.fsdecode(record.name), reason="its head does not have its recorded length")
    return head
