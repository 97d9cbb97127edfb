"""Objects at a URL: what a transport does, and which one a URL means.

An object has a name (words of letters, digits and ``-`` with slashes between them) and bytes that
never change. So two calls are enough to write: make an object if there is none of its name, and
remove one. A reader sees a whole object or none.

Every call waits for a disk or a network, so a program with an event loop makes it in a thread.
Each ends after a stated time: see :mod:`fsmount.remote.s3`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from fsmount.errors import UsageError
from fsmount.remote.folder import FolderTransport

_FORMS = "s3://BUCKET/PREFIX or file:///FOLDER"


@dataclass(frozen=True)
class Patience:
    """How long a call to a server may take, in seconds.

    connect_s : until the server answers a connection.
    retry_s : for so long a request that fails is tried again.
    request_s : for one request.
    """

    connect_s: float
    retry_s: float
    request_s: float


def patience_of(limit_s: float) -> Patience:
    """The patience of a program that waits for a picture, and wants an error after `limit_s`.

    If the server does not answer at all, the error comes after a third of that.
    """
    return Patience(connect_s=min(5.0, limit_s / 10), retry_s=limit_s / 4, request_s=limit_s * 0.8)


class Transport(Protocol):
    """The objects at one URL.

    All methods raise :class:`RemoteFailed` if the network or the disk fails, and
    :class:`RemoteRefused` if the server does not allow the call.
    """

    url: str

    @property
    def keeps_versions(self) -> bool:
        """Whether a removed object stays as an older version. Known after an object was made."""

    def put(self, name: str, data: bytes) -> bool:
        """Make an object, which is then on the disk of the server.

        Return False, and change nothing, if there is one of this name. If the answer of the server
        was lost, the call was tried again: then False may mean that this call made it.
        """

    def get(self, name: str) -> bytes:
        """Return the bytes of an object. Raises :class:`RemoteMissing`."""

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of an object from `start`, fewer at its end.

        Raises :class:`RemoteMissing`.
        """

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if there is none of this name."""

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield name and bytes of all objects below a folder, in the order of the names."""

    def folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the URL, in order."""

    def delete(self, name: str) -> None:
        """Remove an object. No error if there is none."""


def is_url(text: str) -> bool:
    """Whether an argument is a URL, and not a path."""
    return "://" in text


def transport_to(
    url: str,
    patience: Patience | None = None,
    *,
    pack_class: str | None = None,
    pace: Callable[[int], None] | None = None,
    proxy: str | None = None,
) -> Transport:
    """Return the transport to a URL. Nothing is read yet.

    `patience` is for servers; by default it is that of a command. `pack_class` is the storage class
    of S3 for packs that are sent. `pace` is called with a number of bytes before
    they are written to a folder, and waits. `proxy` is the URL of a proxy to a server.

    Raises :class:`UsageError` for any other form of URL, and :class:`RemoteNeedsExtra` for
    ``s3://`` if obstore is not installed.
    """
    parts = urlsplit(url, allow_fragments=False)
    if pack_class is not None and parts.scheme != "s3":
        raise UsageError(f"{url}: only a bucket (s3://) has storage classes")
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and len(parts.path) > 1:
        root = os.fsdecode(unquote(parts.path, errors="surrogateescape"))
        return FolderTransport(url, root, pace=pace)
    if parts.scheme == "s3" and parts.netloc and not parts.query:
        # obstore is an extra, and takes long to load.
        from fsmount.remote.s3 import S3Transport

        prefix = unquote(parts.path).strip("/")
        return S3Transport(url, parts.netloc, prefix, patience, pack_class, proxy)
    raise UsageError(f"{url} is none of the URLs that fsmount knows: {_FORMS}")


def where_of(remote: Transport, name: str) -> str:
    """The URL of an object, for people."""
    return f"{remote.url.rstrip('/')}/{name}"
