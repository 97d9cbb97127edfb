"""Runs a fixed script of operations on a store, as programs do through the mount.

The script also knows the tree that must be seen after each operation. Every call of the tree
(`mount/store_fs.py`) is one *step*. `Script.now` is the tree before the step, `Script.then` the
tree after it. Whenever the step is interrupted, one of the two is right.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import stat
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from fsmount.errors import FsmountError
from fsmount.mount.attributes import Caller, Changes
from fsmount.mount.store_fs import RENAME_EXCHANGE, StoreFilesystem
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT
from fsmount.store.maintenance import compacting, copies, maintenance, trimming
from fsmount.store.recovery import consistency
from fsmount.store.retention.trash import Name
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import find
from fsmount.store.writable_store import WritableStore
from tests.crash.limits import LARGE, patch
from tests.crash.model import (
    Node,
    Tree,
    agrees,
    differences,
    freeze,
    numbers,
    snapshot,
    truncate,
    write,
)
from tests.crash.scratch import fast
from tests.support.frames import png, screens

T = TypeVar("T")
USER = Caller(0, 0, 0o022)
_ALL = 1 << 60


class Spoilt(Exception):
    """A step failed and left neither the tree before it nor the tree after it."""


class Script:
    """Runs the operations. `look` reads the live store after a failed step.

    `prunes`: whether files are pruned, too.
    """

    def __init__(self, seed: int, count: int, *, prunes: bool = True) -> None:
        self._prunes = prunes
        self._chance = random.Random(seed)
        self._count = count
        self._pictures = [png(frame) for frame in screens(24, seed=seed, height=48, width=64)]
        self._root = Node(stat.S_IFDIR | 0o755, ino=ROOT)
        self.now: Tree = {}
        self.then: Tree = {}
        # After each step: the tree, and the node that each path shows.
        self.history: list[tuple[Tree, dict[bytes, int]]] = [({}, {})]
        # A power cut must leave the tree of this step or a later one, and the bytes of these nodes.
        self.durable_step = 0
        self.durable: dict[int, bytes] = {}
        # The places in these nodes with later writes, acknowledged or not.
        self.loose: dict[int, list[slice]] = {}
        self.failed = 0
        self.steps = 0
        # Operation number -> a change to the folder before that operation.
        self.events: dict[int, Callable[[], None]] = {}
        self._moment = 1_600_000_000_000_000_000
        # What was pruned: folder, path and file, the newest last. The store may have removed some
        # of it since, to make room.
        self._trash: list[tuple[Node, bytes, Node]] = []

    async def run(self, store: WritableStore) -> None:
        """Run all operations on `store`."""
        self._store = store
        self._vfs = StoreFilesystem(store, store)
        # The VFS that watches SQLite has no shared memory, so there is only one connection.
        patch(copies, "collect_beside", lambda _: copies.collect(store.index))
        patch(consistency, "contradiction_at", lambda _: store.index.contradiction())
        patch(compacting, "faults_at", lambda _: store.index.integrity())
        patch(maintenance, "find_hidden_at", lambda _: trimming.find_hidden_in(store.index))
        try:
            for number in range(self._count):
                self.events.get(number, lambda: None)()
                try:
                    await self._operation(number)
                except _StepFailed:
                    continue
        finally:
            self._vfs.close()

    # -- steps

    async def _step(
        self,
        call: Callable[[], Awaitable[T]],
        change: Callable[[], T | None],
        written: tuple[Node, int, bytes] | None = None,
    ) -> T:
        """Do one call of the tree, and make the same change in the model.

        If the call fails without effect, the model is restored. `written` is the write of
        this call; a failure may leave a part of it.
        """
        self.steps += 1
        before = freeze(self._root)
        self.now = before
        undo = snapshot(self._root)
        change()
        self.then = freeze(self._root)
        if written is not None:
            node, at, data = written
            self.loose.setdefault(node.number, []).append(slice(at, at + len(data)))
        try:
            result = await call()
        except (OSError, FsmountError) as error:
            self._failed_step(error, undo, written)
            raise _StepFailed from error
        self.now = self.then
        self._note()
        return result

    def _failed_step(
        self,
        error: Exception,
        undo: Callable[[], None],
        written: tuple[Node, int, bytes] | None,
    ) -> None:
        """Compare the tree after a failed call; it must be as before the call or as after it."""
        self.failed += 1
        found = self.look(self._store)
        if not agrees(found, self.then):
            undo()
            if written is not None:
                self._take_part(found, *written)
            if not agrees(found, freeze(self._root)):
                raise Spoilt(f"{error!r}: {differences(found, self.now)}") from error
        self.now = self.then = freeze(self._root)
        self._note()

    def _take_part(self, found: Tree, node: Node, at: int, data: bytes) -> None:
        """Take into the model the first bytes of a write that the store kept, if any."""
        paths = [path for path, number in numbers(self._root).items() if number == node.number]
        if paths and paths[0] in found:
            there = found[paths[0]].data
            old = node.data
            for size in range(len(data) + 1):
                write(node, at, data[:size])
                if node.data == there:
                    return
                node.data = old

    def _note(self) -> None:
        self.history.append((self.now, numbers(self._root)))

    look: Callable[[StoreFiles], Tree] = staticmethod(lambda store: {})

    # -- choosing

    def _nodes(self, want: Callable[[Node], bool]) -> list[tuple[Node, bytes, Node]]:
        found = []
        folders = [self._root]
        while folders:
            folder = folders.pop()
            for name, node in sorted(folder.names.items()):
                if want(node):
                    found.append((folder, name, node))
                if node.is_folder:
                    folders.append(node)
        return found

    def _a_folder(self) -> Node:
        return self._chance.choice(
            [self._root, *(n for _, _, n in self._nodes(lambda n: n.is_folder))]
        )

    def _a_file(self) -> tuple[Node, bytes, Node] | None:
        files = self._nodes(lambda node: stat.S_ISREG(node.mode))
        return self._chance.choice(files) if files else None

    def _time(self) -> int:
        self._moment += 1_234_567_891
        return self._moment

    def _body(self, number: int) -> bytes:
        kind = self._chance.random()
        if kind < 0.7:
            return self._pictures[number % len(self._pictures)]
        if kind < 0.8:
            return self._chance.randbytes(LARGE + 5000)
        return self._chance.randbytes(self._chance.choice([0, 1, 100, 3000]))

    # -- operations

    async def _operation(self, number: int) -> None:
        kinds = [
            (self._put, 22), (self._replace, 10), (self._rewrite, 5), (self._modify, 6),
            (self._truncate, 4), (self._rename, 8), (self._exchange, 2), (self._unlink, 9),
            (self._unlink_open, 2), (self._mkdir, 4), (self._rmdir, 2), (self._symlink, 2),
            (self._link, 3), (self._chmod, 3), (self._xattr, 4), (self._fsync, 8),
            (self._fsyncdir, 4), (self._drain, 7), (self._read, 5), (self._repack, 11),
            (self._room, 5), (self._repack_all, 6), (self._import, 8),
        ]  # fmt: skip
        if self._prunes:
            kinds += [(self._prune, 8), (self._restore, 4), (self._empty_trash, 4)]
        doing = self._chance.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        await doing(number)
        # Let background work run, as it does between calls of programs.
        for _ in range(self._chance.choice([0, 1, 3, 10])):
            await trio.lowlevel.checkpoint()

    async def _write_new(self, folder: Node, name: bytes, data: bytes) -> Node:
        node = Node(stat.S_IFREG | 0o644)

        def add() -> None:
            folder.names[name] = node

        fh, shown = await self._step(
            lambda: self._vfs.create(folder.ino, name, 0o644, os.O_RDWR, USER),
            add,
        )
        node.ino = shown.ino
        await self._fill(fh, node, data)
        when = self._time()
        await self._step(
            lambda: self._vfs.setattr(node.ino, Changes(mtime_ns=when), USER),
            lambda: setattr(node, "mtime", when),
        )
        return node

    async def _fill(self, fh: int, node: Node, data: bytes, at: int = 0) -> None:
        try:
            for start in range(0, len(data), 7000):
                part = data[start : start + 7000]
                await self._step(
                    lambda start=start, part=part: self._vfs.write(fh, at + start, part),  # type: ignore[misc]
                    lambda start=start, part=part: write(node, at + start, part),  # type: ignore[misc]
                    (node, at + start, part),
                )
            await self._step(lambda: self._vfs.flush(fh), lambda: None)
        finally:
            await self._release(fh)

    async def _release(self, fh: int) -> None:
        """Release a handle. No program gets the errors of this call."""
        try:
            await self._vfs.release(fh)
        except (OSError, FsmountError):
            self.failed += 1

    async def _put(self, number: int) -> None:
        folder = self._a_folder()
        name = b"%d.png" % number
        await self._write_new(folder, name, self._body(number))

    async def _replace(self, number: int) -> None:
        """Replace a file as rsync does: write under a temporary name, rename over the old file."""
        target = self._a_file()
        if target is None:
            return
        folder, name, _ = target
        scratch = b"." + name + b".%06d" % number
        node = await self._write_new(folder, scratch, self._body(number))

        def move() -> None:
            del folder.names[scratch]
            folder.names[name] = node

        await self._step(lambda: self._vfs.rename(folder.ino, scratch, folder.ino, name), move)

    async def _rewrite(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        node = target[2]
        fh = await self._step(
            lambda: self._vfs.open(node.ino, os.O_RDWR | os.O_TRUNC, USER),
            lambda: truncate(node, 0),
        )
        await self._fill(fh, node, self._body(number))

    async def _modify(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        node = target[2]
        fh = await self._step(lambda: self._vfs.open(node.ino, os.O_RDWR, USER), lambda: None)
        at = self._chance.randrange(len(node.data) + 500)
        await self._fill(fh, node, self._chance.randbytes(600), at)

    async def _truncate(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        node = target[2]
        size = self._chance.randrange(len(node.data) + 2000)
        await self._step(
            lambda: self._vfs.setattr(node.ino, Changes(size=size), USER),
            lambda: truncate(node, size),
        )

    async def _rename(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        folder, name, node = target
        goal = self._a_folder()
        new = b"moved-%d" % number

        def move() -> None:
            del folder.names[name]
            goal.names[new] = node

        await self._step(lambda: self._vfs.rename(folder.ino, name, goal.ino, new), move)

    async def _exchange(self, number: int) -> None:
        one, other = self._a_file(), self._a_file()
        if one is None or other is None or one[2] is other[2]:
            return

        def swap() -> None:
            one[0].names[one[1]], other[0].names[other[1]] = other[2], one[2]

        await self._step(
            lambda: self._vfs.rename(one[0].ino, one[1], other[0].ino, other[1], RENAME_EXCHANGE),
            swap,
        )

    async def _unlink(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        folder, name, node = target

        def remove() -> None:
            del folder.names[name]

        await self._step(lambda: self._vfs.unlink(folder.ino, name), remove)
        try:
            await self._vfs.forget(node.ino, 1 << 30)
        except OSError:
            # The kernel does not learn of this error. The next start purges the file.
            self.failed += 1

    async def _unlink_open(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        folder, name, node = target
        fh = await self._step(lambda: self._vfs.open(node.ino, os.O_RDWR, USER), lambda: None)

        def remove() -> None:
            del folder.names[name]

        try:
            await self._step(lambda: self._vfs.unlink(folder.ino, name), remove)
        except _StepFailed:
            await self._release(fh)
            raise
        await self._fill(fh, node, b"nobody sees this")

    async def _mkdir(self, number: int) -> None:
        folder = self._a_folder()
        name, node = b"folder-%d" % number, Node(stat.S_IFDIR | 0o755)

        def add() -> None:
            folder.names[name] = node

        shown = await self._step(lambda: self._vfs.mkdir(folder.ino, name, 0o755, USER), add)
        node.ino = shown.ino

    async def _rmdir(self, number: int) -> None:
        empty = self._nodes(lambda node: node.is_folder and not node.names)
        if not empty:
            return
        folder, name, _ = self._chance.choice(empty)

        def remove() -> None:
            del folder.names[name]

        await self._step(lambda: self._vfs.rmdir(folder.ino, name), remove)

    async def _symlink(self, number: int) -> None:
        folder = self._a_folder()
        name, node = b"link-%d" % number, Node(stat.S_IFLNK | 0o777, b"some\xffwhere")

        def add() -> None:
            folder.names[name] = node

        await self._step(lambda: self._vfs.symlink(folder.ino, name, node.data, USER), add)

    async def _link(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        folder, name = self._a_folder(), b"again-%d" % number

        def add() -> None:
            folder.names[name] = target[2]

        await self._step(lambda: self._vfs.link(target[2].ino, folder.ino, name), add)

    async def _chmod(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        mode = self._chance.choice([0o400, 0o644, 0o755])
        await self._step(
            lambda: self._vfs.setattr(target[2].ino, Changes(mode=mode), USER),
            lambda: setattr(target[2], "mode", stat.S_IFREG | mode),
        )

    async def _xattr(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        node, name, value = target[2], b"user.note", b"%d" % number
        if name in node.xattrs and number % 2:
            await self._step(
                lambda: self._vfs.removexattr(node.ino, name),
                lambda: node.xattrs.pop(name) and None,
            )
            return

        def put() -> None:
            node.xattrs[name] = value

        await self._step(lambda: self._vfs.setxattr(node.ino, name, value), put)

    async def _fsync(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        node = target[2]
        fh = await self._step(lambda: self._vfs.open(node.ino, os.O_RDWR, USER), lambda: None)
        at, data = len(node.data), self._chance.randbytes(self._chance.choice([0, 0, 1, 600]))
        try:
            if data:
                await self._step(
                    lambda: self._vfs.write(fh, at, data),
                    lambda: write(node, at, data),
                    (node, at, data),
                )
            try:
                await self._step(lambda: self._vfs.fsync(fh), lambda: None)
            except _StepFailed:
                # Believe the second call, as programs do that do not know better.
                await self._step(lambda: self._vfs.fsync(fh), lambda: None)
            self.forced(node)
        finally:
            await self._release(fh)

    async def _fsyncdir(self, number: int) -> None:
        fh = await self._vfs.opendir(ROOT)
        try:
            await self._step(lambda: self._vfs.fsyncdir(fh), lambda: None)
            self.forced(None)
        finally:
            await self._vfs.releasedir(fh)

    async def _drain(self, number: int) -> None:
        with trio.move_on_after(1):
            await self._store.drain()

    async def _repack(self, number: int) -> None:
        """Repack as an idle mount does; sometimes during encoding, and not always to the end."""
        left = self._chance.choice([1, 3, 1000, 1000])
        if left > 3:
            await self._drain(number)
        go_on = itertools.repeat(True, left)
        try:
            await self._store.repack_in_background(lambda: next(go_on, False))
        except (OSError, FsmountError, ExceptionGroup):
            self.failed += 1

    async def _repack_all(self, number: int) -> None:
        """Repack as the command does: alone, or with new files that arrive as the repack begins.

        The repack has then waited for the encoder, so it finishes packs while others commit.
        """
        store, maintenance = self._store, self._store._maintenance
        require_consistent = maintenance._require_consistent
        count, wait = self._chance.choice([0, 1, 3, 6]), self._chance.randrange(12)

        async def busy() -> None:
            await require_consistent()
            for at in range(count):
                await self._write_new(self._root, b"%d-%d" % (number, at), self._body(at))
            await self._until_appended()
            for _ in range(wait):
                await trio.lowlevel.checkpoint()

        patch(maintenance, "_require_consistent", busy)
        try:
            with trio.move_on_after(20):
                await store.repack(lambda _: None)
        except (OSError, FsmountError, ExceptionGroup):
            self.failed += 1
        finally:
            patch(maintenance, "_require_consistent", require_consistent)

    async def _import(self, number: int) -> None:
        """Import a file as the command does. At its end the file is forced to the disk."""
        folder, name = self._a_folder(), b"import-%d" % number
        data, when = self._body(number), self._time()
        node = Node(stat.S_IFREG | 0o644, data, when)
        above = {inner: path for path, inner in numbers(self._root).items()}.get(folder.number)

        def add() -> None:
            folder.names[name] = node

        with tempfile.TemporaryDirectory(dir=fast()) as scratch:
            source = Path(scratch) / "source"
            source.write_bytes(data)
            source.chmod(0o644)
            os.utime(source, ns=(when, when))
            target = name if above is None else above + b"/" + name
            await self._step(partial(self._imported, source, target), add)
        found = find(self._store, target)
        assert found is not None
        node.ino = found.ino
        if found.staged is None:
            self.forced(node)

    async def _imported(self, source: Path, target: bytes) -> None:
        """Import one file. Raises OSError if it is not imported."""
        importer = Importer(self._store, lambda files, size: None)
        with trio.move_on_after(20):
            await importer.add(source, target)
            if not importer.summary.problems:
                return
        raise OSError(errno.EIO, f"not imported: {importer.summary.problems}")

    async def _until_appended(self) -> None:
        """Wait until an entry waits for its commit, or no file is under way."""
        writer = self._store._writer
        for _ in range(500):
            if writer._appended or not self._store.pending():
                return
            await trio.lowlevel.checkpoint()

    async def _room(self, number: int) -> None:
        """Make room as on a full disk."""
        await self._store.reclaim(_ALL)

    # -- the trash

    async def _prune(self, number: int) -> None:
        """Prune one file as the command does. Then its name in the trash is forced to the disk."""
        target = self._a_file()
        if target is None:
            return
        folder, name, node = target
        above = {inner: path for path, inner in numbers(self._root).items()}.get(folder.number)
        path = name if above is None else above + b"/" + name
        found = find(self._store, path)
        if found is None or found.staged is not None:
            return

        def remove() -> None:
            del folder.names[name]

        wanted = [Name(folder.ino, name, path, found.ino)]
        await self._step(partial(self._store.prune, wanted), remove)
        self._trash.append((folder, path, node))
        self.forced(None)

    async def _restore(self, number: int) -> None:
        """Give a pruned file its name back, if its folder is still there and the name is free."""
        if not self._trash:
            return
        folder, path, node = self._chance.choice(self._trash)
        there = {entry.path for entry, _ in self._store.index.in_trash()}
        # Of several files of one path the newest comes back.
        folder, _, node = [each for each in self._trash if each[1] == path][-1]
        name = path.rpartition(b"/")[2]
        folders = [self._root, *(inner for _, _, inner in self._nodes(lambda n: n.is_folder))]
        if path not in there or name in folder.names or not any(f is folder for f in folders):
            return

        def add() -> None:
            folder.names[name] = node

        await self._step(partial(self._restored, path), add)
        self._trash.remove((folder, path, node))
        self.forced(None)

    async def _restored(self, path: bytes) -> None:
        wanted = iter([True])
        reasons = list(self._store.trash.restore(lambda p: p == path and next(wanted, False)))
        if reasons != [(path, None)]:
            raise Spoilt(f"not restored: {reasons}")
        await self._store.durable()

    async def _empty_trash(self, number: int) -> None:
        """Remove some or all of the trash, and sometimes give its space back at once."""
        names = [entry.name for entry, _ in self._store.index.in_trash()]
        gone = self._chance.sample(names, self._chance.randint(0, len(names)))
        await self._step(partial(self._store.trash.remove, gone), lambda: None)
        left = {entry.path for entry, _ in self._store.index.in_trash()}
        for _, path, node in self._trash:
            if path not in left:
                try:
                    await self._vfs.forget(node.ino, 1 << 30)
                except OSError:
                    self.failed += 1
        self._trash = [each for each in self._trash if each[1] in left]
        if self._chance.random() < 0.5:
            try:
                await self._store.give_back(compact=self._chance.random() < 0.5)
            except (OSError, FsmountError, ExceptionGroup):
                self.failed += 1

    async def _read(self, number: int) -> None:
        target = self._a_file()
        if target is None:
            return
        fh = await self._step(
            lambda: self._vfs.open(target[2].ino, os.O_RDONLY, USER), lambda: None
        )
        try:
            data = await self._vfs.read(fh, 0, 1 << 20)
        except (OSError, FsmountError):
            self.failed += 1
        else:
            if data != target[2].data:
                raise Spoilt(f"{target[1]!r} was read as other bytes")
        finally:
            await self._release(fh)

    # -- power cuts

    def forced(self, node: Node | None) -> None:
        """Note that this step acknowledged an fsync of a file, or of the names alone."""
        self.durable_step = len(self.history) - 1
        if node is not None:
            self.durable[node.number] = node.data
            self.loose.pop(node.number, None)


class _StepFailed(Exception):
    """A step failed; the script leaves out the rest of its operation."""
