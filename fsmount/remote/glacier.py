"""Archived objects of S3: how each one stands, and requests to restore it, by boto3.

obstore has no RestoreObject. boto3 does this alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from fsmount.errors import (
    RemoteFailed,
    RemoteMissing,
    RemoteNeedsExtra,
    RemoteRefused,
    UsageError,
)

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as missing:
    raise RemoteNeedsExtra("fsmount thaw", package="boto3", extra="glacier") from missing

_CONNECT_S, _READ_S, _TRIES = 10, 60, 5


class Glacier:
    """The archived objects below a prefix of a bucket.

    All methods raise :class:`RemoteFailed`, :class:`RemoteMissing` and :class:`RemoteRefused`.
    """

    def __init__(self, url: str) -> None:
        """Raises :class:`UsageError` for a URL that is not ``s3://``."""
        parts = urlsplit(url, allow_fragments=False)
        if parts.scheme != "s3":
            raise UsageError(f"{url}: only objects in a bucket (s3://) are archived")
        self._url = url
        self._bucket = parts.netloc
        self._prefix = unquote(parts.path).strip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"mode": "standard", "max_attempts": _TRIES},
        )
        with self._translated(""):
            self._client: Any = boto3.client(
                "s3", endpoint_url=endpoint or None, region_name=region, config=config
            )

    def standing(self, name: str) -> tuple[str, bool | None]:
        """Return the storage class of an object, and whether it is restored.

        None: nobody has asked for it. False: it is under way.
        """
        with self._translated(name):
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
        restore = head.get("Restore")
        is_restored = None if restore is None else 'ongoing-request="false"' in restore
        return str(head.get("StorageClass", "STANDARD")), is_restored

    def restore(self, name: str, tier: str, days: int) -> None:
        """Ask for a copy of an object that can be read for so many days."""
        request = {"Days": days, "GlacierJobParameters": {"Tier": tier.capitalize()}}
        with self._translated(name):
            try:
                self._client.restore_object(
                    Bucket=self._bucket, Key=self._key(name), RestoreRequest=request
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "RestoreAlreadyInProgress":
                    raise

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        where = f"{self._url.rstrip('/')}/{name}" if name else self._url
        try:
            yield
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in ("404", "NoSuchKey"):
                raise RemoteMissing(where) from error
            if code in ("403", "AccessDenied"):
                raise RemoteRefused(where, reason=str(error).rstrip(".")) from error
            raise RemoteFailed(where, reason=str(error).rstrip(".")) from error
        except BotoCoreError as error:
            raise RemoteFailed(where, reason=str(error).rstrip(".")) from error
