"""The static files of the page. They are few and small, so they stay in memory."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class StaticFile(NamedTuple):
    """The bytes of a file and its media type."""

    data: bytes
    kind: str


def load() -> dict[str, StaticFile]:
    """Return all static files by name. Raises OSError."""
    found = {}
    for entry in (resources.files("fsmount") / "web" / "static").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in _KINDS:
            found[entry.name] = StaticFile(entry.read_bytes(), _KINDS[suffix])
    return found
