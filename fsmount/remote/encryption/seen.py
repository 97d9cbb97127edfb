"""What this machine has seen at an encrypted URL.

A server can show an older state, hide the keys so that the next push would be plain, or show keys
of its own. A note in the home folder of the user tells. It holds no secrets:
``$XDG_STATE_HOME/fsmount/remotes/HASH.json``, by default below ``~/.local/state``.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk


@dataclass
class Seen:
    """The note on one URL.

    url : the URL, without a slash at its end.
    store : the identity of the store there.
    ring : the number of the newest ring.
    state : the number of the newest state.
    pins : the fingerprint of each master key.
    """

    url: str
    store: str = ""
    ring: int = 0
    state: int = 0
    pins: list[str] = field(default_factory=list)


def note_path(url: str) -> Path:
    """The file of the note on a URL."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    name = hashlib.sha256(os.fsencode(_plain(url))).hexdigest()[:32]
    return Path(home) / "fsmount/remotes" / f"{name}.json"


def seen_at(url: str) -> Seen | None:
    """Read the note on a URL; None if this machine has not seen it encrypted.

    Raises :class:`Damaged` and OSError: without a readable note nobody knows what was seen.
    """
    path = note_path(url)
    try:
        values = json.loads(path.read_bytes())
        return Seen(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        why = "it is no note on a URL. Delete it to trust what the URL shows"
        raise Damaged(path, reason=why) from error


def note(seen: Seen) -> None:
    """Write the note on a URL. Raises OSError."""
    path = note_path(seen.url)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two programs may write it at the same moment.
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    disk = Disk()
    disk.write_file(scratch, json.dumps(asdict(seen) | {"url": _plain(seen.url)}).encode())
    disk.rename(scratch, path)


def forget(url: str) -> bool:
    """Remove the note on a URL; whether there was one. Raises OSError."""
    path = note_path(url)
    found = path.exists()
    with suppress(FileNotFoundError):
        path.unlink()
    return found


def agrees(seen: Seen, pins: Sequence[str]) -> bool:
    """Whether a ring has all master keys that were seen."""
    return list(pins[: len(seen.pins)]) == seen.pins


def _plain(url: str) -> str:
    return url.rstrip("/")
