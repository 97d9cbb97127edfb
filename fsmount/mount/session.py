"""The life of a mount: check the request, open the source, answer requests, end cleanly.

After a clean end (``umount``, ``fsmount umount``, a signal of :data:`signals.ENDING`) nothing is
mounted. The same holds after any end before the mount was reported as ready. After any other end
the mountpoint stays and answers "Transport endpoint is not connected". An empty folder in its place
would look to ``rsync --delete`` as if all files had been deleted.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from fsmount.errors import FsmountError, NoFuse, NotWritable, OnlyReadable, UsageError
from fsmount.folder import Folder
from fsmount.mount import fuse, reading_text, signals, text_files, view_folders
from fsmount.mount.daemon import detach_streams, in_background
from fsmount.mount.filesystem import Filesystem
from fsmount.mount.folders_fs import FoldersFilesystem
from fsmount.mount.idle import repack_when_idle
from fsmount.mount.log import log_to
from fsmount.mount.mountpoint import check_fuse, check_mountpoint, mounted_on
from fsmount.mount.notify import READY, STOPPING, forget, notify, report
from fsmount.mount.options import MountOptions
from fsmount.mount.pruning import prune_when_idle
from fsmount.mount.pushing import Pushing, keep_looking
from fsmount.mount.readonly_fs import ReadOnlyFilesystem, Tree
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.mount.text_files import TextFiles
from fsmount.mount.union_fs import FIRST, UnionFilesystem
from fsmount.mount.unmount import free_if_dead
from fsmount.mount.view_folders import ViewFolders
from fsmount.mount.write_back import write_back
from fsmount.store import config
from fsmount.store.files import StoreFiles
from fsmount.store.packs.supply import Supply
from fsmount.store.read_store import ReadStore
from fsmount.store.store import OpenedStore, open_read_store, open_store
from fsmount.store.writable_store import WritableStore

_log = logging.getLogger(__name__)

LOG_NAME = "mount.log"
"""The log of a mount in the background, in the folder of its store."""

_WRITE_BACK_S = 30
# After `umount` of the same store the process that served it takes a moment to end.
_LOCK_WAIT_S = 3.0
# A mount is reported as ready when its first worker runs, so that the first picture opens as fast
# as any other. It is reported no later than this: everything else works without a worker.
_WARM_S = 1.0
# The file with the number of files that the kernel lets a process open at most.
_MOST_FILES = Path("/proc/sys/fs/nr_open")
# Looked up before anything is mounted; see write_back.py.
_STAT = shutil.which("stat") or "stat"

OpenTree = Callable[[Path, MountOptions], Tree]
"""Opens the tree at a path, with the options of the mount. The serving process calls it."""

OpenStores = Callable[[MountOptions], AbstractAsyncContextManager[Mapping[str, ReadStore]]]
"""Opens stores that lie elsewhere: one with the name "", or several by the names of their folders.

The serving process calls it."""

BringPacks = Callable[[StoreFiles, MountOptions], AbstractAsyncContextManager[Supply]]
"""Brings the packs of a store that are at a URL only. The serving process calls it."""

Ready = Callable[[], None]
"""The session calls it once, when the mount answers."""

_Task = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class MountRequest:
    """The source, the mountpoint and the options of a mount.

    `source`: a store, or a source for `open_tree`. `open_tree`: opens a source that is no store;
    the mount shows it read-only. `open_union`: opens a tree in the folder of the store; the folders
    in the root of this tree appear in the root of the store. `open_stores`: opens what lies at
    `url`; the mount shows it read-only. `source` is then the folder for what was read, and for the
    log. `bring_packs`: brings packs of a store that are at a URL only.
    """

    source: Path
    mountpoint: Path
    options: MountOptions = field(default_factory=MountOptions)
    open_tree: OpenTree | None = None
    open_union: OpenTree | None = None
    open_stores: OpenStores | None = None
    url: str = ""
    bring_packs: BringPacks | None = None

    @property
    def is_store(self) -> bool:
        """Whether the source is a store on this machine."""
        return self.open_tree is None and self.open_stores is None

    def resolved(self) -> MountRequest:
        """The same request with absolute paths without symbolic links."""
        return replace(self, source=self.source.resolve(), mountpoint=self.mountpoint.resolve())

    def check(self) -> None:
        """Raise the errors that can be known before mounting, such as :class:`UsageError`.

        :func:`serve` names them.
        """
        if self.is_store:
            config.read(self.source)
        elif self.options.repack_after_s is not None:
            raise UsageError("the mount option 'repack' is for stores")
        elif self.options.prune_after_s is not None:
            raise UsageError("the mount option 'prune' is for stores")
        elif self.options.text_after_s is not None:
            raise UsageError("the mount option 'text' is for stores")
        elif self.options.views:
            raise UsageError("the mount option 'views' is for stores")
        elif self.options.push is not None:
            raise UsageError("the mount option 'push' is for stores")
        # A store takes them in any case: tomorrow packs of it may be at a URL.
        if self.open_tree is not None and self.options.is_for_url:
            raise UsageError(
                "the mount options 'cache', 'cache_dir' and 'timeout' are for URLs and stores"
            )
        check_fuse(self.options)
        check_mountpoint(
            self.mountpoint,
            self.source,
            nonempty=self.options.nonempty,
            # A store is read through a descriptor of its folder.
            by_path=self.open_tree is not None,
        )


def serve(request: MountRequest, ready: Ready = lambda: None) -> None:
    """Mount and serve in this process until it is unmounted.

    It tells systemd when the mount answers, and what is to be encoded. Raises :class:`NoStore`,
    :class:`NoFuse`, :class:`BadMountpoint`, :class:`StoreLocked`, :class:`UsageError`, and the
    errors of opening the source.
    """
    request.check()
    log_to(os.environ.get("FSMOUNT_LOG"), in_thread=True)

    def tell() -> None:
        ready()
        notify(READY)

    _run(request.resolved(), tell)


def serve_in_background(request: MountRequest) -> None:
    """Like :func:`serve`, in a new process. Returns when the mount answers.

    Errors before that are raised here. Later errors are logged: to the file that FSMOUNT_LOG names,
    or to ``mount.log`` in the store, or in the folder of the cache. Another source has no log
    without FSMOUNT_LOG.
    """
    request.check()
    request = request.resolved()

    def serve_it(ready: Ready) -> None:
        forget()
        # A folder that is shown read-only gets no log. A store that is moved keeps its log.
        has_log = request.open_tree is None
        usual = str(Folder(request.source).path / LOG_NAME) if has_log else os.devnull
        detach_streams(log_to(os.environ.get("FSMOUNT_LOG") or usual, in_thread=True))
        os.chdir("/")
        _run(request, ready)

    in_background(request.mountpoint, serve_it)


def _run(request: MountRequest, ready: Ready) -> None:
    """Set limits and signals of this process, and serve in it."""
    _allow_many_files()
    with signals.restored():
        signals.ignore()
        trio.run(_serve, request, ready)


def _allow_many_files() -> None:
    """Raise the limit of open files as far as the system allows.

    Each open staged file takes a descriptor of this process. Root can raise the limit above that of
    other programs. Otherwise a program that opens as many files as it may would get "too many open
    files" from fsmount first.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        hard = max(hard, int(_MOST_FILES.read_text()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(request: MountRequest, ready: Ready) -> None:
    options = request.options
    if request.open_stores is not None:
        async with request.open_stores(options) as stores:
            await _serve_stores(request, stores, ready)
    elif request.open_tree is not None:
        await _serve_tree(request, request.open_tree(request.source, options), ready)
    elif options.read_only:
        with open_read_store(request.source, elsewhere=request.bring_packs is not None) as opened:
            async with (
                _union(request, opened.layout.root) as tree,
                _packs(request, opened) as packs,
                opened.running(cache_bytes=options.cache_bytes, packs=packs) as store,
            ):
                await _serve_store(request, store, None, tree, None, ready)
    else:
        pushing = None
        if options.push is not None:
            pushing = Pushing(
                str(request.source),
                options.push,
                options.push_every_s,
                encrypts=options.push_encrypts,
            )
        with _open_store(request) as opened_store:
            async with (
                _union(request, opened_store.layout.root) as tree,
                _packs(request, opened_store) as packs,
                opened_store.started(cache_bytes=options.cache_bytes, packs=packs) as writable,
            ):
                await _serve_store(request, writable, writable, tree, pushing, ready)
        if pushing is not None and opened_store.index.changed:
            await pushing.at_end()


def _open_store(request: MountRequest) -> OpenedStore:
    """Open the store of a request for reading and writing."""
    force_lock = request.options.force_lock
    try:
        return open_store(
            request.source,
            lock_wait_s=_LOCK_WAIT_S,
            force_lock=force_lock,
            elsewhere=request.bring_packs is not None,
        )
    except NotWritable as error:
        raise OnlyReadable(error.detail, **error.fields) from error


@asynccontextmanager
async def _union(request: MountRequest, root: Path) -> AsyncIterator[Tree | None]:
    """Open the tree in the folder of a store, if the request shows one. It runs in the block."""
    if request.open_union is None:
        yield None
        return
    tree = request.open_union(root, request.options)
    async with tree.running():
        yield tree


@asynccontextmanager
async def _packs(request: MountRequest, opened: StoreFiles) -> AsyncIterator[Supply | None]:
    """In the block packs that are at a URL only can be read; gives None if there are none."""
    if request.bring_packs is None or not opened.away.packs:
        yield None
        return
    count, url = len(opened.away.packs), opened.away.url
    _log.info("%d packs are at %s only: nothing is repacked, and no text is read", count, url)
    async with request.bring_packs(opened, request.options) as supply:
        yield supply


@dataclass(frozen=True, slots=True)
class _Served:
    """The parts from which a mount answers.

    `source`: its name in the mount table of the kernel. `work`: runs while it is mounted.
    `written_files`: returns the paths of files that are open for writing. `warm`: the mount is
    ready once this has returned.
    """

    filesystem: Filesystem
    source: Path | str
    work: Callable[[], Awaitable[None]] = trio.sleep_forever
    written_files: Callable[[], list[Path]] = list
    warm: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint


async def _serve_store(
    request: MountRequest,
    store: ReadStore,
    writable: WritableStore | None,
    tree: Tree | None,
    pushing: Pushing | None,
    ready: Ready,
) -> None:
    """Serve a store until it is unmounted. If `tree` is given, show both as a union.

    `writable` is the same store if it is mounted for writing. The tree must be running. `pushing`
    pushes it meanwhile.
    """
    vfs = StoreFilesystem(store, writable)
    if writable is not None:
        writable.trash.nameless = vfs.lost_name
    started = trio.Event()

    async def start_worker() -> None:
        try:
            await store.warm()
        finally:
            started.set()

    async def warm() -> None:
        with trio.move_on_after(_WARM_S):
            await started.wait()

    look = keep_looking if pushing is None else pushing.run
    tasks: dict[str, _Task] = {
        "rendering ahead": vfs.run,
        "starting a worker": start_worker,
        "telling systemd": partial(report, store.pending),
        "looking after pushes": partial(look, store),
    }
    if writable is not None:
        tasks |= _writing(writable, request.options)

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for name, task in tasks.items():
                nursery.start_soon(_keep_serving, name, task)

    def written_files() -> list[Path]:
        held = [] if writable is None else writable.held()
        return [request.mountpoint / os.fsdecode(store.index.path(ino)) for ino in held]

    shown: Filesystem = vfs
    if tree is not None:
        shown = UnionFilesystem(shown, ReadOnlyFilesystem(tree, FIRST))
    if request.options.views:
        texts = TextFiles(store, vfs)
        views = UnionFilesystem(ViewFolders(store, vfs, texts), texts, text_files.FIRST)
        shown = UnionFilesystem(shown, views, view_folders.FIRST)
    served = _Served(shown, store.path, work, written_files, warm)
    try:
        await _answer(request, served, ready)
    finally:
        vfs.close()


def _writing(store: WritableStore, options: MountOptions) -> dict[str, _Task]:
    """Return the background tasks of a mount that may write, by their names for the log."""
    tasks: dict[str, _Task] = {
        "encoding": store.run,
        "looking after the trash": partial(
            prune_when_idle, store, options.prune_after_s, fuse.forget_name
        ),
    }
    if options.repack_after_s is not None:
        tasks["repacking"] = partial(repack_when_idle, store, options.repack_after_s)
    if options.text_after_s is not None and not store.away.packs:
        words = reading_text.command(store.layout.root)
        read = partial(reading_text.read_text_when_idle, store, options.text_after_s, words)
        tasks["reading text"] = read
    return tasks


async def _serve_stores(
    request: MountRequest, stores: Mapping[str, ReadStore], ready: Ready
) -> None:
    """Show stores that lie elsewhere read-only, until they are unmounted."""
    request = replace(request, options=replace(request.options, read_only=True))
    shown = {os.fsencode(name): StoreFilesystem(store, None) for name, store in stores.items()}

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for each in shown.values():
                nursery.start_soon(_keep_serving, "rendering ahead", each.run)

    async def warm() -> None:
        with trio.move_on_after(_WARM_S):
            await next(iter(stores.values())).warm()

    only = shown.get(b"")
    served = _Served(only or FoldersFilesystem(shown, request.url), request.url, work, list, warm)
    try:
        await _answer(request, served, ready)
    finally:
        for each in shown.values():
            each.close()


async def _serve_tree(request: MountRequest, tree: Tree, ready: Ready) -> None:
    """Show a tree read-only until it is unmounted."""
    request = replace(request, options=replace(request.options, read_only=True))
    async with tree.running():
        await _answer(request, _Served(ReadOnlyFilesystem(tree), tree.source), ready)


async def _keep_serving(name: str, work: _Task) -> None:
    """Run background work, and log its error: the files stay readable without this work."""
    try:
        await work()
    except Exception:
        _log.exception("%s ended; the files stay as they are until the next mount", name)


async def _answer(request: MountRequest, served: _Served, ready: Ready) -> None:
    """Mount, and answer requests until unmounted. Raises :class:`NoFuse`.

    Until `ready` has returned every end unmounts. Later only a clean end unmounts. After any other
    end the mountpoint stays, and is dead.
    """
    ending = signals.EndSignals()
    mountpoint = request.mountpoint
    is_ready = clean = False
    device = None

    def report_ready() -> None:
        nonlocal is_ready
        try:
            ready()
            is_ready = True
        except FsmountError as error:
            _log.error("%s: unmounting", error)
            fuse.stop()

    if request.options.nonempty:
        # Files below the mount stay reachable through this descriptor, also for `fsmount adopt`,
        # which finds it in /proc. It stays open until this process ends.
        os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _mount(request, served)
    try:
        device = _device(mountpoint)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signals, ending, served.written_files)
            nursery.start_soon(served.work)
            nursery.start_soon(_announce, mountpoint, served.warm, report_ready)
            await fuse.serve()
            notify(STOPPING)
            clean = True
            nursery.cancel_scope.cancel()
    finally:
        unmount = clean or not is_ready
        # Another filesystem may have been mounted on top since.
        is_on_top = device is None or _device(mountpoint) == device
        with signals.held_back():
            fuse.close(unmount=unmount and is_on_top)
        _log.info("%s is %s", mountpoint, "unmounted" if unmount else "not served any more")


def _mount(request: MountRequest, served: _Served) -> None:
    mountpoint = request.mountpoint
    try:
        with signals.held_back():
            fuse.mount(served.filesystem, served.source, mountpoint, request.options)
    except RuntimeError as error:
        # The program that mounts for fsmount may have been killed half-way.
        free_if_dead(mountpoint)
        raise NoFuse(f"the system refused to mount on {mountpoint} ({error})") from error


def _device(mountpoint: Path) -> str | None:
    """The device of the mounted filesystem; None if the table of the kernel does not tell."""
    try:
        mounted = mounted_on(str(mountpoint))
    except OSError:
        return None
    return None if mounted is None else mounted.device


async def _announce(
    mountpoint: Path, warm: Callable[[], Awaitable[None]], report_ready: Ready
) -> None:
    await _wait_for_kernel(mountpoint)
    await warm()
    _log.info("%s is mounted", mountpoint)
    report_ready()


async def _wait_for_kernel(mountpoint: Path) -> None:
    """Wait until the mount answers. Raises :class:`NoFuse` if it answers with an error.

    Another process asks the kernel. If a process is killed while one of its threads waits for its
    own mount, it never ends: the thread keeps /dev/fuse open, and the kernel waits for an answer.
    """
    asking = subprocess.Popen(
        [_STAT, "-f", "--", mountpoint],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if await trio.to_thread.run_sync(asking.wait, abandon_on_cancel=True):
        raise NoFuse(f"{mountpoint} is mounted, but does not answer")


async def _end_on_signals(
    ending: signals.EndSignals, written_files: Callable[[], list[Path]]
) -> None:
    _log.info("%s: unmounting", await ending.first())
    notify(STOPPING)
    with trio.move_on_after(_WRITE_BACK_S):
        await trio.to_thread.run_sync(write_back, written_files(), abandon_on_cancel=True)
    fuse.stop()
