"""A mount's life: checks, the store opened, requests answered, and a clean end.

A clean end (``umount``, ``fsmount umount``, SIGTERM, SIGINT, SIGHUP) leaves nothing mounted. After
any other end the mountpoint stays and answers "Transport endpoint is not connected": an empty
folder in its place would look to ``rsync --delete`` as if all files had been deleted.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import pickle
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import pyfuse3
import trio

from fsmount.errors import FsmountError, NoFuse
from fsmount.mount.fuse import READ_ONLY_TIMEOUT_S, TIMEOUT_S, Operations, Overrides
from fsmount.mount.mountpoint import check_fuse, check_mountpoint
from fsmount.mount.options import MountOptions
from fsmount.mount.vfs import Vfs
from fsmount.store import config
from fsmount.store.store import Store

_log = logging.getLogger(__name__)

_READY = b"ready"
_LOG_BYTES = 4 << 20
_WRITE_BACK_S = 30
# After `umount` of the same store the process that served it takes a moment to end.
_LOCK_WAIT_S = 3.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(
    store_path: Path,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Mount a store and serve it until it is unmounted; `ready` is called once it answers.

    Raises :class:`NoStore`, :class:`NoFuse`, :class:`BadMountpoint`, :class:`StoreLocked` and
    what else opening the store raises.
    """
    _check(store_path, mountpoint, options)
    log_to(os.environ.get("FSMOUNT_LOG"))
    _allow_many_files()
    trio.run(_serve, store_path.resolve(), mountpoint.resolve(), options, ready)


def _check(store_path: Path, mountpoint: Path, options: MountOptions) -> None:
    config.read(store_path)
    check_fuse(options)
    check_mountpoint(mountpoint, store_path)


def serve_in_background(store_path: Path, mountpoint: Path, options: MountOptions) -> None:
    """Like :func:`serve` in a new process; returns when the mount answers.

    What goes wrong before that is raised here; what happens later is in the log, a file in the
    store or the one that FSMOUNT_LOG names.
    """
    _check(store_path, mountpoint, options)
    receiver, sender = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _become_daemon(sender, store_path.resolve(), mountpoint.resolve(), options)
    os.close(sender)
    os.waitpid(child, 0)
    with open(receiver, "rb") as pipe:
        message = pipe.read()
    if message == _READY:
        return
    if message:
        error = pickle.loads(message)
        assert isinstance(error, FsmountError)
        raise error
    raise FsmountError(f"the process that was to serve {mountpoint} ended before it was ready")


def _become_daemon(
    sender: int, store_path: Path, mountpoint: Path, options: MountOptions
) -> NoReturn:
    """The forked process: leaves the terminal, serves, and reports once through the pipe."""
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.umask(0o077)
        log = os.environ.get("FSMOUNT_LOG") or str(store_path / "mount.log")
        _detach_streams(log_to(log))
        os.chdir("/")

        def ready() -> None:
            os.write(sender, _READY)
            os.close(sender)

        _allow_many_files()
        trio.run(_serve, store_path, mountpoint, options, ready)
        code = 0
    except FsmountError as error:
        code = error.exit_code
        _report(sender, error)
    except BaseException as error:
        _log.critical("the mount ended", exc_info=error)
        _report(sender, FsmountError(f"the mount ended: {error!r}"))
    finally:
        logging.shutdown()
        os._exit(code)


def _report(sender: int, error: FsmountError) -> None:
    _log.error("%s", error)
    try:
        os.write(sender, pickle.dumps(error))
    except OSError:
        _log.debug("nobody waits for the mount any more")


def log_to(path: str | None) -> int:
    """Send the log to a file (made readable by its owner only), or to stderr.

    Returns the descriptor the log goes to; a file that cannot be written (a store on a read-only
    disk) sends the log to nowhere.
    """
    root = logging.getLogger()
    handler: logging.StreamHandler[Any]
    handler = logging.StreamHandler() if path is None else _file_handler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return int(handler.stream.fileno())


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
    os.close(nowhere)


def _allow_many_files() -> None:
    """Each open staged file is a descriptor here: take as many as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(
    store_path: Path, mountpoint: Path, options: MountOptions, ready: Callable[[], None]
) -> None:
    store = Store.open(
        store_path,
        read_only=options.read_only,
        cache_bytes=options.cache_bytes,
        lock_wait_s=_LOCK_WAIT_S,
    )
    try:
        await serve_store(store, mountpoint, options, ready)
    finally:
        store.close()


async def serve_store(
    store: Store,
    mountpoint: Path,
    options: MountOptions,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Mount an open store and answer until it is unmounted. Raises :class:`NoFuse`."""
    vfs = Vfs(store)
    overrides = Overrides(options.uid, options.gid, options.umask)
    timeout_s = READ_ONLY_TIMEOUT_S if store.read_only else TIMEOUT_S
    try:
        pyfuse3.init(
            Operations(vfs, overrides, timeout_s),
            str(mountpoint),
            _fuse_options(store.path, options),
        )
    except RuntimeError as error:
        raise NoFuse(f"the system refused to mount on {mountpoint} ({error})") from error
    clean = False
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_on_signals, store, mountpoint)
            nursery.start_soon(_in_background, "rendering ahead", vfs.run)
            nursery.start_soon(_in_background, "encoding", store.run)
            nursery.start_soon(_announce, mountpoint, ready)
            await pyfuse3.main()
            clean = True
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=clean)
        vfs.close()
        _log.info("%s is %s", mountpoint, "unmounted" if clean else "not served any more")


def _fuse_options(store_path: Path, options: MountOptions) -> set[str]:
    # libfuse splits at commas unless they are escaped.
    source = str(store_path).replace("\\", "\\\\").replace(",", "\\,")
    chosen = {"default_permissions", f"fsname={source}", "subtype=fsmount"}
    if options.read_only:
        chosen.add("ro")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


async def _in_background(work: str, task: Callable[[], Awaitable[None]]) -> None:
    """Files that are readable must stay so when work behind them fails."""
    try:
        await task()
    except Exception:
        _log.exception("%s ended; the files stay as they are until the next mount", work)


async def _announce(mountpoint: Path, ready: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(os.statvfs, mountpoint, abandon_on_cancel=True)
    _log.info("%s is mounted", mountpoint)
    ready()


async def _end_on_signals(
    store: Store,
    mountpoint: Path,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            _log.info("%s: unmounting", signal.Signals(number).name)
            paths = [mountpoint / os.fsdecode(store.index.path(ino)) for ino in store.held()]
            with trio.move_on_after(_WRITE_BACK_S):
                await trio.to_thread.run_sync(_write_back, paths, abandon_on_cancel=True)
            pyfuse3.terminate()
            return


def _write_back(paths: list[Path]) -> None:
    """Wait for the pages of open files that programs changed through a memory mapping.

    They are still with the kernel. Its syncfs only sends them to us and does not wait until we
    have them; fsync of each file does.
    """
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            _log.info("%s: %s", path, error.strerror)
            continue
        try:
            os.fsync(fd)
        except OSError as error:
            _log.error("%s: %s", path, error.strerror)
        finally:
            os.close(fd)
