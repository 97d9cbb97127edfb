"""The local side of a store at a URL: a folder with its index, and with the blocks that were read.

The folder is a store that can be read: an index, and packs and large files that are sparse files.
It is kept from mount to mount. A mount holds the lock of its folder, so two mounts of one URL have
two folders: ``0``, ``1`` and so on. Nothing in it is needed: it may be deleted while nothing is
mounted from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fsmount.errors import CacheFailed, Damaged, FsmountError, RemoteMissing
from fsmount.remote import index_pages
from fsmount.remote.blocks import Files, Table
from fsmount.remote.fetching import Fetching
from fsmount.remote.objects import Body, State, why_missing
from fsmount.remote.transport import Transport, where_of
from fsmount.store import contents
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.store import OpenedReadStore, open_read_store

_MOST_MOUNTS = 100


def make_private(folder: Path, disk: Disk) -> None:
    """Make the folder for one URL, and that for caches, so that only their owner sees them."""
    for each in (folder.parent, folder):
        disk.mkdir(each, parents=True)


def folder_of(url: str, caches: Path) -> Path:
    """The folder for one URL in the folder for caches."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    key = hashlib.sha256(f"{endpoint}\n{url.rstrip('/')}".encode(errors="surrogateescape"))
    return caches / key.hexdigest()[:32]


@contextmanager
def cached(
    remote: Transport, state: State, caches: Path, budget: int, limit_s: float
) -> Iterator[tuple[OpenedReadStore, Fetching]]:
    """Open a state of a store at a URL for reading. The index is brought first.

    `caches` is the folder for caches; `budget` is for blocks, in bytes. A read
    ends after `limit_s` seconds. Waits for disk and network.
    Raises :class:`Damaged`, :class:`StatePruned` and errors of the transport, :class:`UsageError`,
    :class:`CacheFailed`.
    """
    disk = Disk()
    with ExitStack() as undo:
        try:
            place = undo.enter_context(held_folder(folder_of(remote.url, caches), remote.url, disk))
            layout = Layout(place / "store")
            notes = place / "blocks"
            for folder in (layout.root, *layout.folders, notes):
                disk.mkdir(folder, parents=True)
            bodies = _bodies(remote, state, layout)
            _bring_index(remote, state, place / "state", layout, disk)
            sizes = {name: body.length for name, body in bodies.items()}
            files = Files(layout.root, notes, sizes, disk)
            found = files.prepare()
            disk.write_file(layout.opened, f"{state.opened}\n".encode())
            disk.write_file(layout.config, state.config.encode())
            opened = undo.enter_context(open_read_store(layout.root))
        except RemoteMissing as error:
            raise why_missing(remote, state.generation, error) from error
        except OSError as error:
            raise CacheFailed(error.filename or caches, reason=error.strerror) from error
        yield (
            opened,
            Fetching(remote, state.generation, bodies, files, Table(files, found, budget), limit_s),
        )


@contextmanager
def held_folder(folder: Path, url: str, disk: Disk) -> Iterator[Path]:
    """Hold the first free folder for a mount of a URL. Raises OSError, FsmountError."""
    make_private(folder, disk)
    about = f"What fsmount mount has read from {url}. It may be deleted while that is unmounted.\n"
    disk.write_file(folder / "README", about.encode(errors="surrogateescape"))
    for number in range(_MOST_MOUNTS):
        place = folder / str(number)
        disk.mkdir(place, parents=True)
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield place
        finally:
            os.close(lock)
        return
    raise FsmountError(f"{url} is mounted {_MOST_MOUNTS} times already")


def _bodies(remote: Transport, state: State, layout: Layout) -> dict[str, Body]:
    """The files of a state by their paths below the store. Raises :class:`Damaged`."""
    found = {}
    files = (state.packs, state.staged, state.raw)
    for (folder, form), bodies in zip(contents.forms(layout), files, strict=True):
        for name, body in bodies.items():
            if form.fullmatch(name) is None:
                where = where_of(remote, f"state {state.generation}")
                raise Damaged(where, reason=f"it names a file {name!r}")
            found[f"{folder.name}/{name}"] = body
    return found


def _bring_index(remote: Transport, state: State, note: Path, layout: Layout, disk: Disk) -> None:
    """Bring the index of a state: only what the one that is there lacks.

    `note` is a file with the state that the index belongs to. It is missing while the index is
    written. Raises :class:`Damaged` and other errors of the transport, OSError.
    """
    known = _known(note, remote)
    if known is not None and known.uuid == state.uuid:
        if state.index[: len(known.index)] == known.index and layout.index.exists():
            disk.unlink(note)
            try:
                index_pages.update(remote, state, known.index, layout.index, disk)
                disk.write_file(note, state.encoded())
                return
            except Damaged:
                # What was there has rotted, or what came: all of it is brought anew.
                pass
    else:
        # Blocks of another store.
        for folder in (*layout.folders, note.with_name("blocks")):
            for name in os.listdir(folder):
                disk.unlink(folder / name)
    disk.unlink(note)
    for end in ("", "-wal", "-shm", "-journal"):
        disk.unlink(layout.index.with_name(layout.index.name + end))
    disk.close(disk.create(layout.index))
    index_pages.update(remote, state, [], layout.index, disk)
    disk.write_file(note, state.encoded())


def _known(note: Path, remote: Transport) -> State | None:
    """The state that the index belongs to; None if that is not known."""
    try:
        return State.parse(note.read_bytes(), str(note))
    except (FileNotFoundError, FsmountError, ValueError):
        return None
