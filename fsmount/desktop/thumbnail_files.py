"""Thumbnail files: their names, the texts in them, and the folders where programs look for them.

Source: the Thumbnail Managing Standard of freedesktop.org, version 0.9.
https://specifications.freedesktop.org/thumbnail-spec/latest/
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import fsmount

SIZES = {"normal": 128, "large": 256, "x-large": 512, "xx-large": 1024}
"""Folder -> the largest width and height in pixels of the thumbnails in it."""

_SOFTWARE = f"fsmount-{fsmount.__version__}"
FAILED = f"fail/{_SOFTWARE}"
"""The folder that names the pictures of which this version cannot make thumbnails."""

# What g_filename_to_uri() of GLib leaves as it is, besides letters, digits and -._~
_PLAIN = "!$&'()*+,:=@"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_SIGNATURE) + 25
# The texts stand before the pixels. Nothing that comes before them is this large.
_HEAD_BYTES = 1 << 16


def file_uri(path: bytes) -> str:
    """Return the URI of an absolute path, in the form of GLib."""
    return "file://" + quote(path, safe=_PLAIN + "/")


def shared_uri(name: bytes) -> str:
    """Return the URI of a file relative to the folder that it is in."""
    return "./" + quote(name, safe=_PLAIN)


def mtime_text(mtime_ns: int, *, xfce: bool = False) -> str:
    """Return a modification time (ns since 1970) as a thumbnail names it: in whole seconds.

    With `xfce`: with microseconds. tumbler 4.18, which makes thumbnails for Xfce, accepts a
    thumbnail only if the time with microseconds is the same. GLib 2.74 accepts only whole seconds.
    """
    seconds, rest = divmod(mtime_ns, 10**9)
    return f"{seconds}.{rest // 1000:06}" if xfce else str(seconds)


def cache_folder() -> Path:
    """Return the folder of the thumbnails of this user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "thumbnails"


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """The thumbnails of one file.

    folder : the folder with the folders of SIZES and FAILED.
    uri : the URI of the file.
    mtime, size : modification time (see :func:`mtime_text`) and size in bytes of the file.
    private : whether only this user may read what is written.
    """

    folder: Path
    uri: str
    mtime: str
    size: int
    private: bool = True

    def paths(self, kind: str) -> list[Path]:
        """Return the paths of a thumbnail. `kind` is a folder: one of SIZES, or FAILED.

        Beside pictures a thumbnail has two names. The standard hashes the URI ``./a.png``, and
        Xfce hashes ``a.png`` (xfce_create_shared_thumbnail_path() of libxfce4util 4.18).
        """
        hashed = [self.uri] if self.private else [self.uri, self.uri.removeprefix("./")]
        return [self.folder / kind / f"{_md5(text)}.png" for text in hashed]

    def is_valid(self, kind: str) -> bool:
        """Whether there is a thumbnail of the file as it is now. Raises OSError."""
        return all(self._describes(path) for path in self.paths(kind))

    def _describes(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                found = texts(file.read(_HEAD_BYTES))
        except FileNotFoundError:
            return False
        return (
            found.get("Thumb::URI") == self.uri
            and found.get("Thumb::MTime") == self.mtime
            and found.get("Thumb::Size", str(self.size)) == str(self.size)
        )

    def write(self, kind: str, png: bytes) -> None:
        """Write a thumbnail from a PNG without texts. It appears whole. Raises OSError."""
        known = {
            "Thumb::URI": self.uri,
            "Thumb::MTime": self.mtime,
            "Thumb::Size": str(self.size),
            "Software": _SOFTWARE,
        }
        _make_folder(self.folder / kind, 0o700 if self.private else 0o777)
        for path in self.paths(kind):
            self._write(path, with_texts(png, known))

    def _write(self, target: Path, data: bytes) -> None:
        scratch = target.with_name(f".{_SOFTWARE}-{os.getpid()}-{target.name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            with open(os.open(scratch, flags, 0o600 if self.private else 0o666), "wb") as file:
                file.write(data)
            scratch.replace(target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder, and those above it that are missing. Raises OSError."""
    if not folder.is_dir():
        _make_folder(folder.parent, mode)
        folder.mkdir(mode, exist_ok=True)


def with_texts(png: bytes, known: Mapping[str, str]) -> bytes:
    """Return a PNG with texts (ASCII) in chunks of type tEXt behind its header."""
    chunks = [_chunk(f"{key}\0{value}".encode("ascii")) for key, value in known.items()]
    return b"".join([png[:_HEADER_END], *chunks, png[_HEADER_END:]])


def _chunk(text: bytes) -> bytes:
    body = b"tEXt" + text
    return struct.pack(">I", len(text)) + body + struct.pack(">I", zlib.crc32(body))


def texts(head: bytes) -> dict[str, str]:
    """Return the texts of the tEXt chunks in the beginning of a PNG, as far as it goes.

    Returns {} if `head` is no PNG.
    """
    found: dict[str, str] = {}
    at = len(_SIGNATURE) if head.startswith(_SIGNATURE) else len(head)
    while at + 12 <= len(head):
        (length,) = struct.unpack_from(">I", head, at)
        kind, body = head[at + 4 : at + 8], head[at + 8 : at + 8 + length]
        if kind == b"IDAT" or len(body) < length:
            break
        if kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            found[key.decode("latin-1")] = value.decode("latin-1")
        at += 12 + length
    return found
