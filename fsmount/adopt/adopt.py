"""Adopt a folder, or go on where a killed run stopped; the package says what the steps are."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from fsmount.adopt import checks, originals, state
from fsmount.adopt.activity import QUIET_S, folder_below, leases, working_in
from fsmount.adopt.collecting import Collector, PassResult
from fsmount.adopt.copying import copy
from fsmount.adopt.state import AdoptedFolder, State
from fsmount.errors import FsmountError, NotAdoptable, UsageError
from fsmount.mount import mount_users
from fsmount.mount.mountpoint import FSTYPE, check_fuse, mounted_at
from fsmount.mount.options import parse_options
from fsmount.mount.status import DeadMountError, read_number
from fsmount.mount.unmount import free_dead
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.tree import Progress, Summary, measure

_log = logging.getLogger(__name__)

_POLL_S = 0.2
# Files that were copied last may wait for the encoder, so deletion tries some more times.
_DELETE_TRIES = 10

Meter = Callable[[str, int, int], AbstractContextManager[Progress]]
"""Shows the progress of a step: (what it does, files, bytes)."""


@dataclass(frozen=True)
class Request:
    """What to adopt, and how.

    `store`: None for the folder `NAME.store` beside the folder. `options`: mount options, as after
    ``-o``. `wait_s`: how long to wait for programs that still write below the mount, in seconds.
    """

    folder: Path
    store: Path | None = None
    options: str = ""
    delete: bool = False
    wait_s: float = 30.0


@dataclass
class Result:
    """What a run did. Paths are relative to the folder, except those of `kept`.

    `imported` counts files before, `collected` files after the store was mounted. `busy` says why
    the adoption is not finished; "" if it is. `originals`: where they are; None if there are none
    any more. `kept` lists the (path, reason) of originals that could not be deleted.
    """

    folder: Path
    store: Path
    imported: int = 0
    collected: int = 0
    deleted: int = 0
    busy: str = ""
    originals: Path | None = None
    conflicts: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)


def adopt(request: Request, meter: Meter, tell: Callable[[str], None]) -> Result:
    """Adopt a folder, or go on with it. No trio loop may run in the caller.

    `tell` gets messages about a mount whose process has died. Raises :class:`NotAdoptable`,
    :class:`AdoptLocked`, :class:`UsageError`, the errors of importing and mounting, and OSError. A
    later call goes on after any error.
    """
    options = parse_options(request.options)
    if options.read_only:
        raise UsageError("programs write to the folder; it cannot be mounted with -o ro")
    folder = Path(os.path.realpath(request.folder))
    kept = state.place(folder)
    checked = None if state.exists(kept) else _checked(request, folder)
    kept.mkdir(mode=0o700, exist_ok=True)
    with closing(State(kept)) as noted, leases():
        if noted.subject is None:
            subject, files, size = checked or _checked(request, folder)
            noted.begin(subject)
        else:
            subject = noted.subject
            _check_is_same(request, subject, folder, kept)
            files, size = (0, 0) if noted.since_ns is not None else measure([(folder, b"")])
        result = Result(folder, subject.store)
        if noted.since_ns is None:
            check_fuse(options)
            with meter("importing", files, size) as progress:
                _import(subject, result, progress)
            noted.mounts(time.time_ns())
        with ExitStack() as undo:
            server, below = _mount(subject, request.options, tell)
            if below is not None:
                undo.callback(os.close, below)
            # While a dead mount was replaced, programs may have written to the folder below.
            if not noted.is_collected or (below is not None and os.listdir(below)):
                _collect(noted, request, result, server, below)
        if not result.busy and request.delete and noted.originals.exists():
            _delete(noted, result, meter)
        if noted.originals.exists():
            result.originals = noted.originals
        elif not result.busy:
            noted.remove()
    return result


def _checked(request: Request, folder: Path) -> tuple[AdoptedFolder, int, int]:
    """Check a new request. Returns the subject, its number of files and their bytes."""
    options = parse_options(request.options)
    checks.check_folder(folder, options)
    wanted = request.store or folder.parent / f"{folder.name}.store"
    store = Path(os.path.realpath(wanted))
    checks.check_store(folder, store)
    check_fuse(options)
    files, size = checks.check_files(folder)
    trio.run(checks.check_space, folder, store, size)
    info = folder.stat()
    return AdoptedFolder(folder, store, info.st_dev, info.st_ino), files, size


def _check_is_same(request: Request, subject: AdoptedFolder, folder: Path, kept: Path) -> None:
    """Check that a request goes on with an adoption as it was begun."""
    if request.store is not None and Path(os.path.realpath(request.store)) != subject.store:
        raise UsageError(f"{folder} is being adopted into {subject.store}; leave out --store")
    if subject.folder != folder:
        raise NotAdoptable(folder, reason=f"{kept} belongs to {subject.folder}")


def _check_folder_below(subject: AdoptedFolder) -> None:
    """Check that the folder, on which nothing is mounted, is the one of the first run."""
    info = subject.folder.stat()
    if (info.st_dev, info.st_ino) != (subject.device, subject.inode):
        why = f"it is not the folder of the first run; move {state.place(subject.folder)} away"
        raise NotAdoptable(subject.folder, reason=why)


def _import(subject: AdoptedFolder, result: Result, progress: Progress) -> None:
    """Copy the folder into its store, which is made if it is missing."""
    if mounted_at(subject.folder) is not None:
        raise NotAdoptable(subject.folder, reason="a filesystem is mounted there")
    _check_folder_below(subject)
    if not config.is_store(subject.store):
        _remove_unfinished(subject)
        config.make(subject.store, Disk())
        subject.store.chmod(stat.S_IMODE(subject.folder.stat().st_mode) | 0o700)

    async def work() -> Summary:
        with open_store(subject.store) as opened:
            async with opened.running() as store:
                return await copy(subject.folder, store, progress)

    summary = trio.run(work)
    if summary.problems:
        path, why = summary.problems[0]
        raise NotAdoptable(subject.folder, reason=f"{path}: {why}")
    result.imported = summary.files


def _remove_unfinished(subject: AdoptedFolder) -> None:
    """Remove a store whose making was killed. No-op if there is none.

    The first run made sure that nothing was there. Raises NotAdoptable if something is there that
    :func:`config.make` does not leave.
    """
    layout = Layout(subject.store)
    if not os.path.lexists(subject.store):
        return
    own = {path.name for path in (*layout.folders, layout.opened, layout.config)}
    others = {
        path.name
        for path in subject.store.iterdir()
        # SQLite makes files beside the index. Other files get a temporary name first.
        if not path.name.startswith(layout.index.name) and path.name.removesuffix(".new") not in own
    }
    inside = [path for folder in layout.folders if folder.is_dir() for path in folder.iterdir()]
    if others or inside:
        reason = f"{subject.store} was not finished, but has files; move it away"
        raise NotAdoptable(subject.folder, reason=reason)
    shutil.rmtree(subject.store)


def _mount(
    subject: AdoptedFolder, options: str, tell: Callable[[str], None]
) -> tuple[int, int | None]:
    """Mount the store over the folder, unless it is mounted.

    Returns the process that serves the mount, and a descriptor of the folder below; None if the
    mount was made by hand on an empty folder.
    """
    server = _server(subject, tell)
    if server is not None:
        return server, folder_below(server, subject.device, subject.inode)
    _check_folder_below(subject)
    below = os.open(subject.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        chosen = ",".join(filter(None, ("nonempty", options)))
        command = [sys.executable, "-P", "-m", "fsmount", "mount", "-o", chosen, "--"]
        done = subprocess.run(
            [*command, subject.store, subject.folder], capture_output=True, check=False
        )
        # A run that was killed may have left a process that has mounted the store meanwhile.
        server = _server(subject, tell)
        if server is None:
            text = os.fsdecode(done.stderr).strip().removeprefix("fsmount: ")
            error = FsmountError(text or f"{subject.folder} could not be mounted")
            error.exit_code = done.returncode or 1
            raise error
    except BaseException:
        os.close(below)
        raise
    return server, below


def _server(subject: AdoptedFolder, tell: Callable[[str], None]) -> int | None:
    """The process that serves the store at the folder; None if nothing is mounted there.

    Unmounts a mount whose process has died. Raises :class:`NotAdoptable` if something else is
    mounted there.
    """
    mounted = mounted_at(subject.folder)
    if mounted is None:
        return None
    try:
        if mounted.fstype == FSTYPE:
            server = read_number(mounted, "pid")
            if os.getxattr(subject.folder, "user.fsmount.store") == os.fsencode(subject.store):
                return server
    except DeadMountError:
        free_dead(subject.folder, tell)
        return None
    raise NotAdoptable(subject.folder, reason=f"{mounted.source} is mounted there")


def _collect(
    noted: State, request: Request, result: Result, server: int, below: int | None
) -> None:
    """Copy into the mount what was written below, and move the originals away."""
    assert noted.subject is not None
    assert noted.since_ns is not None
    folder, device = noted.subject.folder, noted.subject.device
    hidden = None if below is None else Path(f"/proc/self/fd/{below}")
    collector = Collector(folder, noted.since_ns)
    end = time.monotonic() + request.wait_s
    while True:
        roots = [root for root in (hidden, noted.originals) if root is not None and root.exists()]
        found = collector.collect(*roots)
        result.collected += found.copied
        result.conflicts, result.problems = found.conflicts, found.problems
        _log.info("%s: %d files taken in, %d not settled", folder, found.copied, found.unsettled)
        workers = working_in(folder, device, server)
        if found.copied and not workers:
            # Nobody can open more files there, so this comes to an end.
            end = time.monotonic() + request.wait_s
        if found.copied == found.unsettled == 0 and not workers:
            if hidden is None or not os.listdir(hidden):
                break
            originals.move(hidden, noted.originals)
            # A rename counts as a change, so no file is settled now.
            end = time.monotonic() + request.wait_s + 2 * QUIET_S
        elif (found.unsettled or workers) and time.monotonic() > end:
            result.busy = _why_busy(found, workers)
            return
        else:
            time.sleep(0 if found.copied else _POLL_S)
    if result.problems:
        result.busy = "some files could not be copied"
        return
    noted.collected()


def _why_busy(found: PassResult, workers: list[int]) -> str:
    if workers:
        who = mount_users.listed([mount_users.named(pid) for pid in workers])
        return f"process {who} has its working folder in the old folder: end it, or let it go out"
    return f"{found.unsettled} files are still being written to the old folder"


def _delete(noted: State, result: Result, meter: Meter) -> None:
    """Delete the originals that the store is proved to have."""
    assert noted.subject is not None
    folder, store = noted.subject.folder, noted.subject.store

    async def work() -> tuple[int, Summary]:
        with open_read_store(store) as opened:
            async with opened.running() as running:
                with meter("comparing", *measure([(noted.originals, b"")])) as progress:
                    return await originals.delete(
                        noted.originals, running, progress, partial(_force, folder)
                    )

    for _ in range(_DELETE_TRIES):
        deleted, summary = trio.run(work)
        result.deleted += deleted
        _log.info("%s: %d originals deleted", folder, deleted)
        result.kept = summary.problems
        if all(why != originals.NOT_ENCODED for _, why in result.kept):
            break
        time.sleep(1)


def _force(folder: Path) -> None:
    """Force what a mount has written to the disk."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(root)
    finally:
        os.close(root)
