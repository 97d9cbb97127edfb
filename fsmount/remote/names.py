"""The names and attributes of a pushed store, without its pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsmount.errors import NotPushed, RemoteMissing
from fsmount.remote import index_pages
from fsmount.remote.objects import State, last_state, why_missing
from fsmount.remote.transport import Transport
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store


@contextmanager
def remote_names(remote: Transport, state: State | None = None) -> Iterator[StoreFiles]:
    """Open a state at a URL in the block, for what needs the index only. Default: the newest.

    It is a folder for temporary files with the index, and with holes in place of staged files.

    Raises :class:`NotPushed`, :class:`StatePruned`, :class:`Damaged`, errors of the transport,
    OSError.
    """
    state = state or last_state(remote)
    if state is None:
        why = "no store was pushed there. Check the URL, or send one: fsmount push STORE URL"
        raise NotPushed(remote.url, reason=why)
    disk = Disk()
    with tempfile.TemporaryDirectory(prefix="fsmount-ls-") as scratch:
        layout = Layout(Path(scratch))
        for folder in layout.folders:
            disk.mkdir(folder)
        try:
            index_pages.receive(remote, state, layout.index, disk)
        except RemoteMissing as error:
            raise why_missing(remote, state.generation, error) from error
        for token, body in state.staged.items():
            fd = disk.create(layout.staging / str(int(token)))
            try:
                disk.ftruncate(fd, body.length)
            finally:
                disk.close(fd)
        disk.write_file(layout.opened, f"{state.opened}\n".encode())
        disk.write_file(layout.config, state.config.encode())
        with open_read_store(layout.root) as opened:
            yield opened
