"""Answers: JSON of any names, errors as sentences, and files."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fsmount.errors import Damaged, FsmountError

Endpoint = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)
_MEDIA = {
    b"png": "image/png",
    b"apng": "image/png",
    b"jpg": "image/jpeg",
    b"jpeg": "image/jpeg",
    b"webp": "image/webp",
    b"avif": "image/avif",
}


class Json(JSONResponse):
    """JSON in ASCII: a byte of a name that is not UTF-8 is a lone surrogate, as elsewhere."""

    def render(self, content: Any) -> bytes:
        """Encode a value."""
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def routes_of(endpoints: Iterable[tuple[str, Endpoint]]) -> list[Route]:
    """Return routes whose errors of the store and the disk are answers with a sentence."""
    return [Route(path, _guarded(endpoint), methods=["GET"]) for path, endpoint in endpoints]


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Damaged as error:
            text = f"{error} `fsmount check --full` lists all damage."
            return Json({"error": text, "damaged": True}, 500)
        except FileNotFoundError:
            return Json({"error": "there is no such file"}, 404)
        except FsmountError as error:
            return Json({"error": str(error)}, 500)
        except OSError as error:
            _log.warning("%s: %s", request.url.path, error)
            return Json({"error": error.strerror or str(error)}, 500)

    return answer


async def told(_: Request, error: Exception) -> Response:
    """Answer a wrong request with a sentence."""
    assert isinstance(error, HTTPException)
    return Json({"error": error.detail}, error.status_code)


async def file(name: bytes, size: int | None, parts: AsyncIterator[bytes]) -> Response:
    """Return the bytes of a file. `size` is None if it may change meanwhile.

    Reads the first part at once: a damaged file must be an error, and not the start of an answer.
    Raises what reading it raises.
    """
    first = await anext(parts, b"")
    headers = {"content-disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}"}
    if size is not None:
        headers["content-length"] = str(size)
    kind = _MEDIA.get(name.rpartition(b".")[2].lower(), "application/octet-stream")
    return StreamingResponse(_joined(first, parts), media_type=kind, headers=headers)


async def _joined(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part
