"""The file fsmount.json of a store: format version and identity."""

from __future__ import annotations

import errno
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsmount.errors import FormatUnsupported, InsideStore, NoStore, NotWritable, StoreExists
from fsmount.folder import Folder
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import CONFIG, Layout

FORMAT = 2
"""Format of the stores that this fsmount writes."""
ELSEWHERE = 3
"""Format of a store some packs of which may be at a URL only (:mod:`fsmount.store.elsewhere`)."""
_READABLE = (1, 2, 3)
PARITY_PERCENT, MOST_PARITY = 5, 25
"""Share of the parity of packs if the config says nothing, and the largest one, in percent."""
# Errors of the system where it refuses writes.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def make(root: Path, disk: Disk, *, parity: int = PARITY_PERCENT) -> None:
    """Create an empty store. Its folder `root` must be missing or empty.

    `parity` is the share of the parity of packs in percent.

    Raises :class:`StoreExists` if `root` contains anything or is not a folder,
    :class:`InsideStore`, and OSError.
    """
    layout = Layout(root)
    for folder in root.resolve().parents:
        if is_store(folder):
            raise InsideStore(root, store=folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise StoreExists(root)
    disk.mkdir(root, parents=True)
    for folder in layout.folders:
        disk.mkdir(folder)
    identity = str(uuid.uuid4())
    now_ns = time.time_ns()
    Index.make(layout.index, identity=identity, uid=os.getuid(), gid=os.getgid(), now_ns=now_ns)
    disk.chmod(layout.index, 0o600)
    config = {
        "about": "A store of fsmount: mount it with `fsmount mount`. Pictures are in packs/.",
        "format": FORMAT,
        "parity": parity,
        "uuid": identity,
    }
    # Every store has this file from the start. If it is missing later, other files may be missing,
    # too.
    disk.write_file(layout.opened, b"0\n")
    # The config comes last, so that a folder with a config is a complete store.
    _write(layout, disk, config)


def enter(root: Path) -> Folder:
    """Open the folder of a store. Raises :class:`NoStore` if there is no folder, and OSError."""
    try:
        return Folder(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoStore(root) from error


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn errors of the block, where the system refuses writes, into :class:`NotWritable`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        raise NotWritable(root, reason=f"{where}{error.strerror}") from error


def read(root: Path) -> dict[str, Any]:
    """Read the config.

    Raises :class:`NoStore`, :class:`FormatUnsupported`, and OSError if the disk refuses to read it.
    """
    try:
        config = json.loads((root / CONFIG).read_bytes())
        version = int(config["format"])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NoStore(root) from error
    except (ValueError, KeyError, TypeError) as error:
        raise NoStore(root) from error
    if version not in _READABLE:
        raise FormatUnsupported(root, version=version, supported=_READABLE[-1])
    return dict(config)


def upgrade(layout: Layout, disk: Disk) -> None:
    """Let an older fsmount refuse the store from here on, because new entries come to it.

    No-op if the store has this format or a newer one. Raises :class:`NoStore`,
    :class:`FormatUnsupported`, OSError.
    """
    config = read(layout.root)
    if config["format"] < FORMAT:
        _write(layout, disk, {**config, "format": FORMAT})


def _write(layout: Layout, disk: Disk, config: dict[str, Any]) -> None:
    """Write the config. Raises OSError."""
    disk.write_file(layout.config, _text(config).encode())


def _text(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2) + "\n"


def portable(text: str) -> str:
    """Return the text of a config for a copy of the store that has all packs."""
    found = json.loads(text)
    if found["format"] != ELSEWHERE:
        return text
    return _text({**found, "format": FORMAT})


def parity_of(found: dict[str, Any]) -> int:
    """Return the share of the parity of packs, in percent, from the result of :func:`read`."""
    percent = found.get("parity", PARITY_PERCENT)
    return min(max(percent, 0), MOST_PARITY) if isinstance(percent, int) else PARITY_PERCENT


def change(layout: Layout, disk: Disk, **values: Any) -> None:
    """Set keys of the config; None removes a key.

    The caller owns the store. Raises :class:`NoStore`, :class:`FormatUnsupported`, OSError.
    """
    config = read(layout.root) | values
    _write(layout, disk, {key: value for key, value in config.items() if value is not None})


def is_store(path: Path) -> bool:
    """Whether there is a store at `path`, in any format and state."""
    return Layout(path).config.is_file()
