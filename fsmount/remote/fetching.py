"""Brings the bytes that a reader needs from a URL into the local blocks, each once.

A reader says which ranges of which files it needs; the index knows all that a picture rests on. So
all of it is asked for at once: blocks that are near to each other in one request, and the requests
side by side. Tasks that need the same block wait for one request. A request has a time limit, after
which all who wait for it get an error; the next reader makes a new one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import CacheFailed, Damaged, FsmountError, RemoteFailed, RemoteMissing
from fsmount.remote.blocks import BLOCK, Block, Files, Table
from fsmount.remote.objects import Body, Part, read_part, why_missing
from fsmount.remote.transport import Transport, where_of
from fsmount.store.disk.disk import pread
from fsmount.store.packs.pack import parse_entry
from fsmount.store.packs.supply import Range
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# Blocks between two that are needed which are fetched as well: 512 KiB take less time than another
# request.
_GAP = 2
# Requests of one reader to one file at a time.
_MOST_RUNS = 24
# A run that goes on behind a block that is there is extended to so many blocks.
_AHEAD = 4
# A staged file has no hash in the index: its objects are read as a whole, and compared.
_STAGED = "staging/"


class _Flight:
    """Something that happens to some blocks now. `error` is set if it failed."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.error: FsmountError | None = None


class Fetching:
    """The supply of a store at a URL; see :class:`fsmount.store.packs.supply.Supply`.

    generation : the number of the state; None if it belongs to none.
    bodies : the files of the state, by their paths below the store.
    files, table : the local blocks.
    limit_s : a reader gets its bytes or an error after so many seconds, whatever the network does.

    Contract: belongs to the trio task.
    """

    def __init__(
        self,
        remote: Transport,
        generation: int | None,
        bodies: dict[str, Body],
        files: Files,
        table: Table,
        limit_s: float,
    ) -> None:
        self._remote = remote
        self._limit_s = limit_s
        self._generation = generation
        self._bodies = bodies
        self._files = files
        self._table = table
        self._flights: dict[Block, _Flight] = {}
        self._nursery: trio.Nursery | None = None
        self._ahead = min(_AHEAD, max(1, table.budget // (16 * BLOCK)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """In the block of code readers are served."""
        failure: Exception | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            except Exception as error:
                # A nursery would put it into a group.
                failure = error
            self._nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        try:
            await threads.finish(Kind.CACHED, self._files.touch, self._table.taken_touches())
        except OSError as error:
            _log.warning("the cache does not know what was used last: %s", error)

    # -- the supply

    def pack(self, number: int) -> Path | None:
        """See :meth:`Supply.pack`. The store itself is a cache."""
        return None

    @asynccontextmanager
    async def held(self, ranges: Sequence[Range]) -> AsyncIterator[None]:
        """See :meth:`Supply.held`. Raises errors of the transport, :class:`Damaged`, OSError."""
        blocks = self._blocks(ranges)
        with self._table.pinned(blocks):
            await self._bring(blocks)
            self._table.touch(blocks)
            yield
        self._make_room()

    async def renew(self, ranges: Sequence[Range]) -> bool:
        """See :meth:`Supply.renew`. The bytes are written over those that are there."""
        blocks = self._blocks(ranges)
        _log.info("%s: bytes are wrong, and read anew", self._urls(ranges))
        await self._await({self._flights[block] for block in blocks if block in self._flights})
        self._start(blocks)
        await self._await({self._flights[block] for block in blocks if block in self._flights})
        return True

    async def blame(self, ranges: Sequence[Range], error: FsmountError) -> FsmountError:
        """See :meth:`Supply.blame`."""
        guilty = await threads.call(Kind.CACHED, torn, ranges) or ranges
        for block in self._blocks(guilty):
            # It stays where it is: others may read it now. The next reader asks for it again.
            if block not in self._flights:
                self._table.remove(block)
        why = error.fields.get("reason", error)
        return Damaged(self._urls(guilty), reason=f"the server gave wrong bytes twice ({why})")

    def _urls(self, ranges: Iterable[Range]) -> str:
        """The URLs of the objects that hold these ranges."""
        names = {
            where_of(self._remote, part.name): None
            for each in ranges
            for part, _, _ in _pieces(self._bodies[_name(each.path)], each.start, each.length)
        }
        return ", ".join(names)

    # -- blocks

    def _blocks(self, ranges: Sequence[Range]) -> list[Block]:
        """All blocks of some ranges, in order. Raises :class:`Damaged` for an unknown file."""
        found: dict[Block, None] = {}
        for each in sorted(ranges):
            name = _name(each.path)
            body = self._bodies.get(name)
            if body is None:
                raise Damaged(where_of(self._remote, name), reason="the state does not name it")
            start, end = each.start, min(each.start + each.length, body.length)
            if name.startswith(_STAGED):
                start, end = _widened(body, start, end)
            for number in range(start // BLOCK, -(-end // BLOCK)):
                found[Block(name, number)] = None
        return list(found)

    async def _bring(self, blocks: Sequence[Block]) -> None:
        """Bring the blocks that are not there; prove those that were there at the start."""
        while True:
            if notes := self._table.unproved(blocks):
                await self._prove(list(notes))
                continue
            under_way = {self._flights[block] for block in blocks if block in self._flights}
            missing = [
                block
                for block in blocks
                if not self._table.has(block) and block not in self._flights
            ]
            if not missing and not under_way:
                return
            self._start(missing, ahead=True)
            await self._await(
                under_way | {self._flights[each] for each in missing if each in self._flights}
            )

    async def _await(self, flights: Iterable[_Flight]) -> None:
        """Wait for flights. Raises the error of one that failed."""
        for flight in flights:
            await flight.ended.wait()
        for flight in flights:
            if flight.error is not None:
                raise flight.error

    async def _prove(self, blocks: Sequence[Block]) -> None:
        """Compare blocks with their notes. Those that differ are not there any more."""
        notes = self._table.unproved(blocks)
        mine = [block for block in notes if block not in self._flights]
        if not mine:
            await self._await({self._flights[block] for block in notes})
            return
        flight = _Flight()
        self._flights |= dict.fromkeys(mine, flight)
        try:

            def compare() -> list[bool]:
                return [self._files.is_whole(block, notes[block]) for block in mine]

            proved = await threads.call(Kind.CACHED, compare)
            for block, is_whole in zip(mine, proved, strict=True):
                if is_whole:
                    self._table.add(block)
                else:
                    self._table.remove(block)
        finally:
            self._land(mine, flight)

    def _land(self, blocks: Iterable[Block], flight: _Flight) -> None:
        for block in blocks:
            if self._flights.get(block) is flight:
                del self._flights[block]
        flight.ended.set()

    # -- requests

    def _start(self, blocks: Sequence[Block], *, ahead: bool = False) -> None:
        """Start the requests for some blocks. Does not await."""
        assert self._nursery is not None, "it is not running"
        for file in dict.fromkeys(block.file for block in blocks):
            numbers = [block.number for block in blocks if block.file == file]
            for first, end in joined(numbers, _MOST_RUNS):
                between = [Block(file, number) for number in range(first, end)]
                for is_busy, group in groupby(between, self._flights.__contains__):
                    if not is_busy:
                        run = list(group)
                        if ahead and not file.startswith(_STAGED):
                            run += self._following(run)
                        flight = _Flight()
                        self._flights |= dict.fromkeys(run, flight)
                        self._nursery.start_soon(self._fly, flight, run)

    def _following(self, run: Sequence[Block]) -> list[Block]:
        """Blocks behind a run that will be read soon: a reader goes through the file in order."""
        first = run[0]
        if not first.number or not self._table.has(Block(first.file, first.number - 1)):
            return []
        found = []
        for number in range(run[-1].number + 1, first.number + self._ahead):
            block = Block(first.file, number)
            if not self._files.length(block) or self._table.has(block) or block in self._flights:
                break
            found.append(block)
        return found

    async def _fly(self, flight: _Flight, run: Sequence[Block]) -> None:
        """Bring a run of blocks."""
        where = where_of(self._remote, run[0].file)
        try:
            with trio.fail_after(self._limit_s):
                data = await self._get(run)
            await self._keep(run, data)
            for block in run:
                self._table.add(block)
        except trio.TooSlowError:
            why = f"no answer in {self._limit_s:g} s. It is tried again at the next read"
            flight.error = RemoteFailed(where, reason=why)
        except FsmountError as error:
            flight.error = error
        except OSError as error:
            # Not as OSError: the file that a program reads is there, whatever the cache says.
            flight.error = CacheFailed(error.filename or "the cache", reason=error.strerror)
        finally:
            self._land(run, flight)

    async def _get(self, run: Sequence[Block]) -> bytes:
        """Ask for the bytes of a run of blocks: one request for each object, side by side."""
        body = self._bodies[run[0].file]
        length = sum(self._files.length(block) for block in run)
        pieces = list(_pieces(body, run[0].number * BLOCK, length))
        found: dict[int, bytes] = {}
        failed: list[FsmountError] = []

        async def get(at: int, part: Part, start: int, length: int) -> None:
            try:
                ask = partial(_read, self._remote, part, start, length)
                found[at] = await threads.call_or_leave(Kind.REMOTE, ask)
            except RemoteMissing as error:
                if self._generation is None:
                    failed.append(error)
                    return
                look = partial(why_missing, self._remote, self._generation, error)
                failed.append(await threads.call_or_leave(Kind.REMOTE, look))
            except FsmountError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for at, piece in enumerate(pieces):
                nursery.start_soon(get, at, *piece)
        if failed:
            raise failed[0]
        return b"".join(found[at] for at in range(len(pieces)))

    async def _keep(self, run: Sequence[Block], data: bytes) -> None:
        """Write blocks to the disk; let go of others if it is full."""
        try:
            await threads.call(Kind.CACHED, self._files.write, run[0], data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._table.budget = max(0, self._table.used // 2)
            _log.warning("the disk is full: the cache gets %d bytes", self._table.budget)
            await self._let_go(self._table.too_many())
            await threads.call(Kind.CACHED, self._files.write, run[0], data)

    def _make_room(self) -> None:
        """Let go of blocks that exceed the budget, in the background."""
        if self._table.used > self._table.budget and self._nursery is not None:
            chosen = [block for block in self._table.too_many() if block not in self._flights]
            if chosen:
                flight = self._leave(chosen)
                self._nursery.start_soon(self._drop, chosen, flight)

    async def _let_go(self, blocks: Sequence[Block]) -> None:
        chosen = [block for block in blocks if block not in self._flights]
        await self._drop(chosen, self._leave(chosen))

    def _leave(self, blocks: Sequence[Block]) -> _Flight:
        """Take blocks out of the table. Who wants one waits until it is a hole."""
        flight = _Flight()
        self._flights |= dict.fromkeys(blocks, flight)
        for block in blocks:
            self._table.remove(block)
        return flight

    async def _drop(self, blocks: Sequence[Block], flight: _Flight) -> None:
        try:
            await threads.call(Kind.CACHED, self._files.drop, blocks)
        except OSError as error:
            _log.warning("the cache could not free blocks: %s", error)
        finally:
            self._land(blocks, flight)


def torn(ranges: Sequence[Range]) -> list[Range]:
    """Return the ranges that are no whole entries. Waits for the disk."""
    found = []
    for each in ranges:
        try:
            with Path(each.path).open("rb") as file:
                parse_entry(pread(file.fileno(), each.length, each.start))
        except (OSError, Damaged):
            found.append(each)
    return found


def _read(remote: Transport, part: Part, start: int, length: int) -> bytes:
    """Ask for a piece of an object, a second time if it was cut off or damaged on the way."""
    try:
        return _read_once(remote, part, start, length)
    except Damaged:
        return _read_once(remote, part, start, length)


def _read_once(remote: Transport, part: Part, start: int, length: int) -> bytes:
    """Ask for a piece of an object. A whole object is compared with its hash."""
    if length == part.length:
        return read_part(remote, part)
    data = remote.get_range(part.name, start, length)
    if len(data) != length:
        why = f"it has {len(data)} bytes instead of {length} at {start}"
        raise Damaged(where_of(remote, part.name), reason=why)
    return data


def _name(path: str) -> str:
    """The path of a file below the store, from its path."""
    return "/".join(path.rsplit("/", 2)[1:])


def _pieces(body: Body, start: int, length: int) -> Iterable[tuple[Part, int, int]]:
    """The objects that hold a run of bytes, and the start and length of each piece."""
    at, end = 0, start + length
    for part in body.parts:
        first, last = max(start, at), min(end, at + part.length)
        if first < last:
            yield part, first - at, last - first
        at += part.length


def _widened(body: Body, start: int, end: int) -> tuple[int, int]:
    """A run of bytes widened to whole parts."""
    at, first, last = 0, start, end
    for part in body.parts:
        if at < end and start < at + part.length:
            first, last = min(first, at), max(last, at + part.length)
        at += part.length
    return first, last


def joined(numbers: Iterable[int], most: int) -> list[tuple[int, int]]:
    """Runs (first, end) that cover all numbers: near ones joined, and at most `most` runs."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number - runs[-1][1] <= _GAP:
            runs[-1] = runs[-1][0], number + 1
        else:
            runs.append((number, number + 1))
    while len(runs) > most:
        gaps = [after[0] - before[1] for before, after in pairwise(runs)]
        at = gaps.index(min(gaps))
        runs[at : at + 2] = [(runs[at][0], runs[at + 1][1])]
    return runs
