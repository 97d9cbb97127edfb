"""Opens the page in a browser without showing its token to other users.

Every user can read the arguments of every process, so the link must not be one. A browser opens a
file of the user instead, which nobody else can read and which leads to the link. The file goes as
soon as the link was used, and at the end of the server.
"""

from __future__ import annotations

import html
import os
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fsmount</title>
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}"></head>
<body><p><a href="{url}">Open the page</a></p></body></html>
"""


@contextmanager
def link_file(url: str) -> Iterator[Path]:
    """In the block there is a file (0600) that leads a browser to `url`. Raises OSError."""
    # Browsers in a sandbox see the files of the home folder rather than those of /tmp.
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsmount"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes files that only their owner can read.
    fd, name = tempfile.mkstemp(prefix="open-", suffix=".html", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(_PAGE.format(url=html.escape(url, quote=True)))
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def show(path: Path) -> bool:
    """Have the user's browser open a file. False if there is none. Waits for its start."""
    return webbrowser.open(path.as_uri())
