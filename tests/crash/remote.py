"""Faults of networks and servers while a store is pushed, pulled, and read in place.

A case is one push, pull or mount, through a proxy that does something to its requests: it cuts the
connection, loses, truncates or corrupts an answer, answers 503, 412 or 403, or is late. It does so
once, from then on, or to every tenth request. SeaweedFS is also killed at a request, and started
again at once; it must take objects again in the time that `tests.support.buckets` states.
The case must end in a stated time, well or with an error of ours. Nothing wrong may have
been served. What is at the URL must be a whole state: the one before or the new one. When the
network works again, the same command must succeed, and all bytes must be there.

``python -m tests.crash.remote [--faults N] [--seed N] [--server moto|weed] [--action NAME]
[--jobs N]``
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import trio

from fsmount.errors import (
    Damaged,
    NotPushed,
    PushOvertaken,
    RemoteFailed,
    RemoteMissing,
    RemoteRefused,
)
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote import blocks, fetching, s3
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.reading import remote_stores
from fsmount.remote.transport import transport_to
from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.ingest import committer, large
from fsmount.store.packs import pack
from fsmount.store.store import open_store
from tests.crash.command import options, processes, report
from tests.crash.limits import patch
from tests.crash.planted import caught
from tests.support import proxy as proxy_module
from tests.support.backups import FILES, LARGE, MORE, WANTED, shown
from tests.support.buckets import BUCKET, Restarting
from tests.support.encoding import Inline, ino_of, put
from tests.support.proxy import Proxy, proxy
from tests.support.remotes import pulled, pushed, read_file
from tests.support.repacking import fill

ACTIONS = ("cut", "lost", "truncate", "corrupt", "503", "412", "403", "delay")
# What a server that keeps its objects on a disk suffers, too.
KILL = "kill"
_ALLOWED = (Damaged, RemoteFailed, RemoteMissing, RemoteRefused, PushOvertaken, NotPushed)
# A request that fails is tried again for RETRY_S; a read ends after LIMIT_S, and the kernel may ask
# twice. A command makes up to 30 calls, of which the first that fails ends it. The rest is for a
# machine that is busy.
_RETRY_S, _LIMIT_S, _SLACK_S = 1, 4, 30
_EVERYTHING = WANTED | MORE
# A command that tries again for so long outlives a start of a server, as it does for a user.
_PATIENT_S = 60
# After so many seconds a server is killed, so that it is in the middle of a request.
_KILL_AFTER_S = (0, 0.002, 0.01, 0.05)


class Fault:
    """What happens to the requests of one case. `count` is how many were hit."""

    def __init__(self, chance: random.Random, actions: Sequence[str]) -> None:
        self.action = chance.choice(actions)
        self.how = chance.choice(("once", "once", "from", "some"))
        if self.action == KILL:
            self.how = "once"
        self._at = 1 + int(chance.expovariate(1 / 6))
        self._chance = chance
        self._seen = 0
        self.count = 0

    def __call__(self, method: str, path: str) -> str:
        self._seen += 1
        hit = {
            "once": self._seen == self._at,
            "from": self._seen >= self._at,
            "some": self._chance.random() < 0.1,
        }[self.how]
        self.count += hit
        return self.action if hit else ""


class Cases:
    """The cases of one process, with a server and a proxy of its own."""

    def __init__(
        self,
        folder: Path,
        between: Proxy,
        server: Restarting,
        starter: ThreadPoolExecutor,
        seed: int,
        actions: Sequence[str],
    ) -> None:
        self._actions = actions
        self._folder = folder
        self._between = between
        self._server = server
        self._starter = starter
        self._starting: Future[None] | None = None
        self._chance = random.Random(seed)
        self._number = 0
        self.wrong: list[str] = []
        self.tally: Counter[str] = Counter()
        self._older, self._newer = folder / "older", folder / "newer"
        config.make(self._older, Disk())
        trio.run(fill, self._older, FILES | LARGE)
        with open_store(self._older) as store:
            put(store, b"staged", b"not encoded yet")
        shutil.copytree(self._older, self._newer)
        trio.run(fill, self._newer, MORE)
        self._whole = self._url()
        pushed(self._newer, self._whole)
        found = last_state(transport_to(self._whole))
        assert found is not None
        self._state = found

    def _url(self) -> str:
        self._number += 1
        return f"s3://{BUCKET}/{os.getpid()}/{self._number}"

    def run(self) -> int:
        """Run one case. Returns the number of requests that were hit."""
        kinds: list[Callable[[Fault], None]] = [self._push, self._pull, self._read, self._read]
        work = self._chance.choice(kinds)
        size = self._chance.choice((512, 4096, 16384))
        patch(blocks, "BLOCK", size)
        patch(fetching, "BLOCK", size)
        fault = Fault(self._chance, self._actions)
        self.tally[work.__name__.strip("_")] += 1
        patient = fault.action == KILL and self._chance.random() < 0.5
        patch(s3, "RETRY_S", _PATIENT_S if patient else _RETRY_S)
        where = f"{work.__name__} {fault.how} {fault.action}, case {self._number}"
        try:
            work(fault)
        except Exception as error:
            self.wrong.append(f"{where}: {error!r}")
        finally:
            self._calm()
        return fault.count

    def _disturb(self, fault: Fault) -> None:
        """Let a fault happen from now on."""

        def plan(method: str, path: str) -> str:
            action = fault(method, path)
            if action != KILL:
                return action
            self.tally["killed"] += 1
            self._starting = self._starter.submit(self._kill_and_start)
            return ""

        self._between.plan = plan

    def _kill_and_start(self) -> None:
        time.sleep(self._chance.choice(_KILL_AFTER_S))
        self._server.kill()
        self._server.start()

    def _calm(self) -> None:
        """Let nothing happen from now on. Wait until a server that was killed takes objects."""
        self._between.plan = lambda method, path: ""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.result()

    def _tried(self, fault: Fault, work: Callable[[], object]) -> bool:
        """Do something under a fault; whether it worked. Errors of ours are allowed, in time."""
        start = time.monotonic()
        how = "failed"
        self._disturb(fault)
        try:
            work()
            how = "well"
            return True
        except _ALLOWED:
            how = "error"
            return False
        finally:
            took = time.monotonic() - start
            self._calm()
            limit = 30 * _RETRY_S + _SLACK_S + (_PATIENT_S if fault.action == KILL else 0)
            assert took < limit, f"it took {took:.0f} s"
            self.tally[f"{how} after a kill" if fault.action == KILL and fault.count else how] += 1

    def _push(self, fault: Fault) -> None:
        url = self._url()
        before = None
        if self._chance.random() < 0.5:
            pushed(self._older, url)
            before = last_state(transport_to(url))
        self._tried(fault, lambda: pushed(self._newer, url))
        remote = transport_to(url)
        found = last_state(remote)
        if found is None:
            assert before is None, "the state before is lost"
        else:
            is_new = found.index_sha256 == self._state.index_sha256
            assert is_new or (before is not None and found == before), "a state of neither"
            assert damaged_parts(remote, found) == [], "a state that is not whole"
        pushed(self._newer, url)
        found = last_state(remote)
        assert found is not None
        assert damaged_parts(remote, found) == []
        back = self._folder / "back"
        pulled(url, back)
        self._compare(shown(back), "after a push")
        shutil.rmtree(back)

    def _pull(self, fault: Fault) -> None:
        back = self._folder / "pulled"
        shutil.rmtree(back, ignore_errors=True)
        if not self._tried(fault, lambda: pulled(self._whole, back)):
            assert not (back / "fsmount.json").exists(), "half a store"
            pulled(self._whole, back)
        self._compare(shown(back), "pulled")

    def _compare(self, found: dict[bytes, bytes], what: str) -> None:
        assert found == _EVERYTHING, f"{what}: other bytes, or files missing"

    def _read(self, fault: Fault) -> None:
        """Mount with an empty cache or that of an earlier case, read, and read again."""
        caches = self._folder / "caches"
        if self._chance.random() < 0.5:
            shutil.rmtree(caches, ignore_errors=True)
        budget = self._chance.choice((2 * blocks.BLOCK, 1 << 20))
        at_start = self._chance.random() < 0.3

        async def look() -> None:
            async with remote_stores(
                self._whole, caches, budget=budget, limit_s=_LIMIT_S
            ) as stores:
                store = stores[""]
                filesystem = StoreFilesystem(store, None)
                names = self._chance.sample(sorted(_EVERYTHING), len(_EVERYTHING))
                self._disturb(fault)

                async def read(name: bytes, must: bool = False) -> None:
                    start = time.monotonic()
                    try:
                        data = await read_file(filesystem, ino_of(store, name))
                        assert data == _EVERYTHING[name], f"wrong bytes of {name!r}"
                    except _ALLOWED:
                        if must:
                            raise
                    took = time.monotonic() - start
                    assert took < 2 * _LIMIT_S + _SLACK_S, f"a read took {took:.0f} s"

                async with trio.open_nursery() as nursery:
                    for name in names[:3]:
                        nursery.start_soon(read, name)
                for name in names:
                    await read(name)
                await trio.to_thread.run_sync(self._calm)
                for name in names:
                    await read(name, must=True)

        if at_start:
            self._tried(fault, lambda: trio.run(look))
        trio.run(look)
        self.tally["well"] += not at_start


def some(work: tuple[int, int, str, str]) -> tuple[int, Counter[str], list[str]]:
    """Run cases until so many requests were hit, each case counted once."""
    seed, wanted, kind, action = work
    _prepare()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Restarting(kind, folder / "server")
        stack.callback(server.kill)
        server.start()
        between = stack.enter_context(proxy(server.port))
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{between.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        starter = stack.enter_context(ThreadPoolExecutor(1, "starter"))
        actions = (*ACTIONS, KILL) if server.can_restart else ACTIONS
        cases = Cases(folder, between, server, starter, seed, [action] if action else actions)
        done = 0
        while done < wanted and not caught(cases.wrong):
            done += cases.run() > 0
        return done, cases.tally, cases.wrong


def _prepare() -> None:
    """Small limits, so that small files reach all kinds of objects, and retries that end soon."""
    logging.getLogger("fsmount").setLevel(logging.CRITICAL)
    large.KEEP_BYTES = 5000
    pack.SEAL_BYTES = 12_000
    patch(committer, "_BATCH_SECONDS", 0.0)
    patch(store_module, "Workers", Inline)
    patch(s3, "RETRY_S", _RETRY_S)
    patch(proxy_module, "_DELAY_S", 0.05)


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", default="moto", choices=["moto", "weed"])
    parser.add_argument("--action", default="", choices=["", *ACTIONS, KILL], help="only this one")
    given = parser.parse_args()
    if given.action == KILL and given.server == "moto":
        parser.error("moto keeps its objects in memory: kill weed")
    share = -(-given.faults // given.jobs)
    work = [
        (given.seed * 1000 + job, share, given.server, given.action) for job in range(given.jobs)
    ]
    with processes(given, len(work)) as pool:
        results = pool.map(some, work)
    tally = sum((each for _, each, _ in results), Counter[str]())
    wrong = [line for _, _, lines in results for line in lines]
    counts = ", ".join(f"{name} {count}" for name, count in sorted(tally.items()))
    return report(f"{sum(done for done, _, _ in results)} faults ({counts})", wrong)


if __name__ == "__main__":
    sys.exit(main())
