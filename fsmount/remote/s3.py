"""Objects in a bucket of S3, or of a server that speaks its protocol, by obstore.

obstore reads the usual variables: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, and those of roles. An object is made
with ``If-None-Match: *`` (Amazon S3, SeaweedFS, moto and others know it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from fsmount.errors import (
    RemoteArchived,
    RemoteFailed,
    RemoteMissing,
    RemoteNeedsExtra,
    RemoteRefused,
)
from fsmount.remote.transport import Patience

try:
    import obstore
    from obstore import exceptions
    from obstore.store import S3Store
except ImportError as missing:
    raise RemoteNeedsExtra("s3://", package="obstore", extra="s3") from missing

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ClientConfig

# A request that fails is tried again for so long. So a lost network ends a call after at most
# RETRY_S + REQUEST_S, and after RETRY_S + CONNECT_S if the server does not answer at all.
CONNECT_S = 10
RETRY_S = 60
REQUEST_S = 300
_RETRIES = 8
# The only objects that may be in cold storage.
_COLD = "packs/"
# The answer of a bucket with an object lock to an object without a checksum begins with this name.
_WANTS_CHECKSUM = "Content-MD5"


class S3Transport:
    """The objects below a prefix of a bucket; see :class:`fsmount.remote.transport.Transport`.

    keeps_versions : whether an object that is removed stays as an older version, as a bucket with
        an object lock has them. Known after an object was made.
    """

    def __init__(
        self,
        url: str,
        bucket: str,
        prefix: str,
        patience: Patience | None = None,
        pack_class: str | None = None,
        proxy: str | None = None,
    ) -> None:
        self.url = url
        self.keeps_versions = False
        self._pack_class = pack_class
        self._place = bucket, prefix or None
        self._patience = patience or Patience(CONNECT_S, RETRY_S, REQUEST_S)
        self._proxy: ClientConfig = {} if proxy is None else {"proxy_url": proxy}
        self._sends_checksum = False
        with self._translated(""):
            self._store = self._connected()

    def _connected(self, **more: str) -> S3Store:
        """The bucket. `more` is configuration of obstore."""
        bucket, prefix = self._place
        patience = self._patience
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        where = {"endpoint": endpoint, "region": region} if endpoint else {"region": region}
        return S3Store(
            bucket,
            prefix=prefix,
            config=where | more,  # type: ignore[arg-type]
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=patience.connect_s),
                "timeout": timedelta(seconds=patience.request_s),
                **self._proxy,
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=patience.retry_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=10),
                    "base": 2,
                },
            },
        )

    def put(self, name: str, data: bytes) -> bool:
        """Put an object with the condition that there is none."""
        with self._translated(name):
            had_checksum = self._sends_checksum
            try:
                return self._put(name, data)
            except exceptions.GenericError as error:
                if had_checksum or _WANTS_CHECKSUM not in str(error):
                    raise
            # Not always, since some servers do not know the header.
            self._store = self._connected(checksum_algorithm="SHA256")
            self._sends_checksum = True
            return self._put(name, data)

    def _put(self, name: str, data: bytes) -> bool:
        try:
            # One request: a multipart upload would check the condition at its end only.
            made = obstore.put(
                self._store,
                name,
                data,
                mode="create",
                use_multipart=False,
                attributes=self._attributes(name),
            )
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return False
        self.keeps_versions |= made["version"] not in (None, "null")
        return True

    def get(self, name: str) -> bytes:
        """Get an object."""
        with self._translated(name):
            return bytes(obstore.get(self._store, name).bytes())

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Get a range of an object."""
        with self._translated(name):
            return bytes(obstore.get_range(self._store, name, start=start, length=length))

    def size(self, name: str) -> int | None:
        """Ask for the head of an object."""
        with self._translated(name):
            try:
                return int(obstore.head(self._store, name)["size"])
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """List the objects below a folder, a thousand a request."""
        with self._translated(folder):
            found = [(each["path"], each["size"])
                     for page in obstore.list(self._store, folder) for each in page]  # fmt: skip
        yield from sorted(found)

    def folders(self) -> Sequence[str]:
        """List with the slash as delimiter."""
        with self._translated(""):
            found = obstore.list_with_delimiter(self._store)["common_prefixes"]
        return sorted(each.rstrip("/").rpartition("/")[2] for each in found)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with self._translated(name):
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    def _attributes(self, name: str) -> Attributes | None:
        """The storage class of an object. All but sealed packs must be read at any time."""
        if self._pack_class is None or not name.startswith(_COLD):
            return None
        return {"Storage-Class": self._pack_class}

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn errors of the block into ours."""
        where = f"{self.url.rstrip('/')}/{name}" if name else self.url
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise RemoteFailed(
                    where, reason="there is no such bucket: make it first"
                ) from error
            raise RemoteMissing(where) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            if "InvalidObjectState" in str(error):
                raise RemoteArchived(where) from error
            raise RemoteRefused(where, reason=_first_line(error)) from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            if "AccessDenied" in str(error):
                # The answer to a deletion, which has an error for each object.
                raise RemoteRefused(where, reason=_first_line(error)) from error
            why = f"{_first_line(error)}. Check AWS_ENDPOINT_URL and the network, and run it again"
            raise RemoteFailed(where, reason=why) from error


def _first_line(error: BaseException) -> str:
    """What obstore says first; the rest is how Rust prints the error."""
    lines = str(error).strip().split("\n")
    return lines[0].strip().rstrip(".")
