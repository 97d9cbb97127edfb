"""A mount's life: checks, the store opened, requests answered, and a clean end.

A clean end (``umount``, ``fsmount umount``, a signal of :data:`signals.ENDING`) leaves nothing
mounted, nor does any end before the mount was said to be ready. After any other end the mountpoint
stays and answers "Transport endpoint is not connected": an empty folder in its place would look to
``rsync --delete`` as if all files had been deleted.
"""

from __future__ import annotations

import copy
import logging
import logging.handlers
import os
import resource
import string
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from fsmount.errors import FsmountError, NoFuse, NotWritable, OnlyReadable, UsageError
from fsmount.folder import Folder, readable
from fsmount.mount import signals
from fsmount.mount.daemon import in_background
from fsmount.mount.fuse import READ_ONLY_TIMEOUT_S, TIMEOUT_S, Operations, Overrides
from fsmount.mount.idle import repack_when_idle
from fsmount.mount.mountpoint import check_fuse, check_mountpoint, mounted_on
from fsmount.mount.options import MountOptions
from fsmount.mount.readonly_fs import ReadOnlyOperations, Tree
from fsmount.mount.store_fs import Vfs
from fsmount.mount.union_fs import FIRST, OperationsBeside
from fsmount.mount.unmount import free_if_dead
from fsmount.quoting import escaped
from fsmount.store import config
from fsmount.store.index import ROOT
from fsmount.store.store import Store

_log = logging.getLogger(__name__)

_LOG_BYTES = 4 << 20
_WRITE_BACK_S = 30
# Paths of up to 4,096 bytes, in arguments of 2 MiB.
_SYNC_AT_ONCE = 256
# After `umount` of the same store the process that served it takes a moment to end.
_LOCK_WAIT_S = 3.0
# A mount that answers is announced when its first worker is up, so that the first picture opens
# like any other; but not later than this, since all else is there.
_WARM_S = 1.0
# What the kernel allows a process at most.
_MOST_FILES = Path("/proc/sys/fs/nr_open")
# Stand for themselves in an option of libfuse.
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-")

# How a source that is no store is opened: called in the process that serves it.
OpenTree = Callable[[Path, MountOptions], Tree]


def serve(
    source: Path,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None] = lambda: None,
    open_tree: OpenTree | None = None,
    beside: OpenTree | None = None,
) -> None:
    """Mount a store and serve it until it is unmounted; `ready` is called once it answers.

    With `open_tree` the source is no store, and what that returns is shown for reading only. With
    `beside` the folders of what that returns stand in the store's root.
    Raises :class:`NoStore`, :class:`NoFuse`, :class:`BadMountpoint`, :class:`StoreLocked` and
    what else opening the source raises.
    """
    _check(source, mountpoint, options, open_tree)
    log_to(os.environ.get("FSMOUNT_LOG"))
    _run(source.resolve(), mountpoint.resolve(), options, ready, open_tree, beside)


def _check(
    source: Path, mountpoint: Path, options: MountOptions, open_tree: OpenTree | None
) -> None:
    if open_tree is None:
        config.read(source)
    elif options.repack_after_s is not None:
        raise UsageError("the mount option 'repack' is for stores")
    check_fuse(options)
    check_mountpoint(mountpoint, source)


def serve_in_background(
    source: Path,
    mountpoint: Path,
    options: MountOptions,
    open_tree: OpenTree | None = None,
    beside: OpenTree | None = None,
) -> None:
    """Like :func:`serve` in a new process; returns when the mount answers.

    What goes wrong before that is raised here; what happens later is in the log: the file that
    FSMOUNT_LOG names, or one in the store.
    """
    _check(source, mountpoint, options, open_tree)
    source, mountpoint = source.resolve(), mountpoint.resolve()

    def serve_it(ready: Callable[[], None]) -> None:
        # Into a folder that is only shown nothing is written. The log of a store stays in it
        # where that is moved.
        usual = os.devnull if open_tree is not None else str(Folder(source).path / "mount.log")
        _detach_streams(log_to(os.environ.get("FSMOUNT_LOG") or usual))
        os.chdir("/")
        _run(source, mountpoint, options, ready, open_tree, beside)

    in_background(mountpoint, serve_it)


def _run(
    source: Path,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None],
    open_tree: OpenTree | None,
    beside: OpenTree | None,
) -> None:
    """Serve in this process: its limits and signals are set."""
    _allow_many_files()
    with signals.restored():
        signals.ignore()
        trio.run(_serve, source, mountpoint, options, ready, open_tree, beside)


def log_to(path: str | None) -> int:
    """Send the log to a file (made readable by its owner only), or to stderr.

    Returns the descriptor the log goes to; a file that cannot be written (a store on a read-only
    disk) sends the log to nowhere.
    """
    root = logging.getLogger()
    handler: logging.StreamHandler[Any]
    handler = logging.StreamHandler() if path is None else _file_handler(path)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return int(handler.stream.fileno())


class _Lines(logging.Formatter):
    """One line a message, whatever names are in it; lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """All of it; what another handler made of the traceback is not used."""
        record = copy.copy(record)
        record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line."""
        return escaped(readable(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        lines = readable(super().formatException(ei)).split("\n")
        return "\n".join(f"  {escaped(line)}" for line in lines)


def _file_handler(path: str) -> logging.StreamHandler[Any]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=1, errors="backslashreplace"
        )
    except OSError:
        return logging.FileHandler(os.devnull)


def _detach_streams(log: int) -> None:
    """stdin and stdout go nowhere; stderr goes to the log, for what libfuse prints."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(log, 2)
    if nowhere > 2:
        os.close(nowhere)


def _allow_many_files() -> None:
    """Each open staged file is a descriptor here: take as many as the system lets us.

    As root that is more than a program has by itself; otherwise one that may open n files, and
    does, would hear from us first that there are too many.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        hard = max(hard, int(_MOST_FILES.read_text()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(
    source: Path,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None],
    open_tree: OpenTree | None,
    beside: OpenTree | None,
) -> None:
    if open_tree is not None:
        await serve_tree(open_tree(source, options), mountpoint, options, ready)
        return
    try:
        store = Store.open(
            source,
            read_only=options.read_only,
            cache_bytes=options.cache_bytes,
            lock_wait_s=_LOCK_WAIT_S,
            force_lock=options.force_lock,
        )
    except NotWritable as error:
        raise OnlyReadable(error.detail, **error.fields) from error
    try:
        if beside is None:
            await serve_store(store, mountpoint, options, ready)
        else:
            tree = beside(store.layout.root, options)
            async with tree.running():
                await serve_store(store, mountpoint, options, ready, tree)
    finally:
        store.close()


async def serve_store(
    store: Store,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None] = lambda: None,
    beside: Tree | None = None,
) -> None:
    """Mount an open store and answer until it is unmounted. Raises :class:`NoFuse`.

    The folders of a tree that runs may stand `beside` the store's files.
    """
    vfs = Vfs(store)
    timeout_s = READ_ONLY_TIMEOUT_S if store.read_only else TIMEOUT_S
    own = Operations(vfs, _overrides(options), timeout_s)
    operations = own if beside is None else _with_tree(own, vfs, store, beside, options)

    started = trio.Event()

    async def start_worker() -> None:
        try:
            await store.warm()
        finally:
            started.set()

    async def warm() -> None:
        with trio.move_on_after(_WARM_S):
            await started.wait()

    async def behind() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_in_background, "rendering ahead", vfs.run)
            nursery.start_soon(_in_background, "encoding", store.run)
            nursery.start_soon(_in_background, "starting a worker", start_worker)
            if options.repack_after_s is not None:
                repack = partial(repack_when_idle, store, options.repack_after_s)
                nursery.start_soon(_in_background, "repacking", repack)

    def held() -> list[Path]:
        return [mountpoint / os.fsdecode(store.index.path(ino)) for ino in store.held()]

    try:
        await _answer(operations, store.path, mountpoint, options, ready, behind, held, warm)
    finally:
        vfs.close()


async def serve_tree(
    tree: Tree,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Show a tree, for reading only, until it is unmounted. Raises :class:`NoFuse`."""
    options = replace(options, read_only=True)
    operations = ReadOnlyOperations(tree, _overrides(options))
    async with tree.running():
        await _answer(
            operations, tree.source, mountpoint, options, ready, trio.sleep_forever, lambda: []
        )


def _with_tree(
    operations: Operations, vfs: Vfs, store: Store, tree: Tree, options: MountOptions
) -> OperationsBeside:
    def has(name: bytes) -> bool:
        return store.index.lookup(ROOT, name) is not None

    shown = ReadOnlyOperations(tree, _overrides(options), FIRST)
    return OperationsBeside(operations, vfs, has, shown)


def _overrides(options: MountOptions) -> Overrides:
    return Overrides(options.uid, options.gid, options.umask)


async def _answer(
    operations: pyfuse3.Operations,
    source: Path,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None],
    behind: Callable[[], Awaitable[None]],
    held: Callable[[], list[Path]],
    warm: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> None:
    """Mount, and answer until unmounted; `behind` runs meanwhile, `held` names files written to.

    That it is `ready` is said when it answers and `warm` has returned. Until that has been said
    every end unmounts. Later a clean end does; after any other the mountpoint stays, and is dead.
    """
    ending = signals.EndSignals()
    served = clean = False
    device = None

    def say_ready() -> None:
        nonlocal served
        try:
            ready()
            served = True
        except FsmountError as error:
            _log.error("%s: unmounting", error)
            pyfuse3.terminate()

    _mount(operations, source, mountpoint, options)
    try:
        device = _device(mountpoint)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signals, ending, held)
            nursery.start_soon(behind)
            nursery.start_soon(_announce, mountpoint, warm, say_ready)
            await pyfuse3.main()
            clean = True
            nursery.cancel_scope.cancel()
    finally:
        unmount = clean or not served
        # Something else may have been mounted there since.
        is_on_top = device is None or _device(mountpoint) == device
        with signals.held_back():
            pyfuse3.close(unmount=unmount and is_on_top)
        _log.info("%s is %s", mountpoint, "unmounted" if unmount else "not served any more")


def _mount(
    operations: pyfuse3.Operations, source: Path, mountpoint: Path, options: MountOptions
) -> None:
    try:
        with signals.held_back():
            pyfuse3.init(operations, str(mountpoint), _fuse_options(source, options))
    except RuntimeError as error:
        # The program that mounts for us may have been killed half-way.
        free_if_dead(mountpoint)
        raise NoFuse(f"the system refused to mount on {mountpoint} ({error})") from error


def _device(mountpoint: Path) -> str | None:
    """The filesystem that is mounted there, if the kernel's table tells."""
    try:
        mounted = mounted_on(str(mountpoint))
    except OSError:
        return None
    return None if mounted is None else mounted.device


def _fuse_options(source: Path, options: MountOptions) -> set[str]:
    chosen = {"default_permissions", f"fsname={_escaped(source)}", "subtype=fsmount"}
    if options.read_only:
        chosen.add("ro")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


def _escaped(path: Path) -> str:
    """A path as libfuse reads it in an option: any byte may stand there as its octal escape.

    It splits options at commas, and pyfuse3 passes ASCII alone. The kernel is given the bytes.
    """
    return "".join(
        chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in os.fsencode(path)
    )


async def _in_background(work: str, task: Callable[[], Awaitable[None]]) -> None:
    """Files that are readable must stay so when work behind them fails."""
    try:
        await task()
    except Exception:
        _log.exception("%s ended; the files stay as they are until the next mount", work)


async def _announce(
    mountpoint: Path, warm: Callable[[], Awaitable[None]], ready: Callable[[], None]
) -> None:
    await trio.to_thread.run_sync(os.statvfs, mountpoint, abandon_on_cancel=True)
    await warm()
    _log.info("%s is mounted", mountpoint)
    ready()


async def _end_on_signals(ending: signals.EndSignals, held: Callable[[], list[Path]]) -> None:
    _log.info("%s: unmounting", await ending.first())
    with trio.move_on_after(_WRITE_BACK_S):
        await trio.to_thread.run_sync(_write_back, held(), abandon_on_cancel=True)
    pyfuse3.terminate()


def _write_back(paths: list[Path]) -> None:
    """Wait for the pages of open files that programs changed through a memory mapping.

    They are still with the kernel. Its syncfs only sends them to us and does not wait until we
    have them; fsync of each file does. Another program does it (sync(1) of coreutils): a file of
    our own mount must never be open in this process. A worker that starts closes what it inherits,
    that waits until we have the pages, and we wait until the worker has started.
    """
    for start in range(0, len(paths), _SYNC_AT_ONCE):
        command: list[str | Path] = ["sync", "--", *paths[start : start + _SYNC_AT_ONCE]]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                # A second Ctrl-C at the terminal must not end it.
                start_new_session=True,
            )
        except OSError as error:
            _log.error("pages of open files are not waited for: %s", error)
            return
        if done.returncode:
            _log.error("%s", os.fsdecode(done.stderr).strip())
