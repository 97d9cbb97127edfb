"""How `check --full`, `export` and `verify` use more cores: their CPU time, and their speed-up.

    python -m tests.bench.reading [FOLDER_OF_PNGS] [--only virtual|believed] [--runs 3]

FOLDER is imported into a new store first.

*believed*: each command in a Python that is told to have 1, 2, 8 or 16 cores, as are its workers.
Prints the least CPU seconds of all its processes in `--runs` runs, and their ratio to those with 2
cores; and the wall time with 1 core by that with 2. Other wall times say little where fewer cores
are real.

*virtual*: the commands in virtual time. Everything in the process that owns the store is real code.
A virtual worker does a job at once, and sleeps for the seconds that it takes (SECONDS). A virtual
core has one worker. The result does not depend on this machine.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import trio
from trio.testing import MockClock

from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store
from fsmount.store.transfer.exporting import Exporter
from fsmount.store.transfer.verifying import StoreCounterpart, Verifier
from fsmount.work import workers as workers_module
from fsmount.work.messages import Answer, Packed, unpack
from tests.bench.cores import environment
from tests.bench.measure import machine, timed
from tests.bench.ours import fsmount
from tests.bench.replay import run_here
from tests.bench.scale import children_cpu
from tests.support.corpus import root

COMMANDS = ("check", "export", "verify")
SECONDS = {"group.render": 0.035, "group.decode_layers": 0.002, "jobs.render": 0.14}
"""Seconds for each object of a job, by module and name: those of `desk` on one core, rounded."""
_BELIEVED = (1, 2, 8, 16)
_VIRTUAL = (1, 2, 4, 8, 16, 32)


def virtual(what: str, store: Path, source: Path, cores: int) -> float:
    """Virtual seconds of a command on so many cores. Each call gives the same."""
    scheduler = trio._core._run
    with ExitStack() as patches, tempfile.TemporaryDirectory() as scratch:
        for place, name, value in (
            (workers_module._Worker, "start", _VirtualWorker.start),
            (trio.to_thread, "run_sync", run_here),
            # As in tests.bench.replay.
            (scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (scheduler, "_r", random.Random(0)),
        ):
            patches.enter_context(mock.patch.object(place, name, value))
        clock = MockClock(autojump_threshold=0)
        return trio.run(_run, what, store, source, Path(scratch), cores, clock=clock)


async def _run(what: str, store_path: Path, source: Path, scratch: Path, cores: int) -> float:
    with open_read_store(store_path) as opened:
        async with opened.running(count=cores) as store:
            start = trio.current_time()
            if what == "check":
                report = check_relations(store)
                await check_contents(store, report, lambda count: None)
                problems: list[Any] = report.findings
            elif what == "export":
                exporter = Exporter(store, scratch, lambda files, size: None, force=False)
                await exporter.export(b"")
                problems = exporter.summary.problems
            else:
                verifier = Verifier(StoreCounterpart(store), lambda files, size: None)
                await verifier.verify([(source, b"")])
                problems = verifier.summary.problems
            assert not problems, problems
            return trio.current_time() - start


class _VirtualWorker:
    """Takes the place of a worker process in :class:`Workers`."""

    pid = 0
    series: int | None = None

    @classmethod
    async def start(cls, _: object) -> _VirtualWorker:
        await trio.lowlevel.checkpoint()
        return cls()

    def alive(self) -> bool:
        return True

    def waited_s(self) -> float:
        return 0.0

    async def ask(self, request: Packed, limit: float) -> Answer:
        # Sealed memory does not arrive: the job decodes those layers again, in no virtual time.
        function, args = unpack([bytearray(piece) for piece in request.pieces[1:]])
        done = function(*args)
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        count = len(done.result) if name == "group.render" else 1
        if name == "group.decode_layers":
            count = len(args[0])
        await trio.sleep(SECONDS[name] * count)
        return Answer(done)

    def hang_up(self) -> None:
        pass

    def kill(self) -> None:
        pass


def believed(what: str, store: Path, source: Path, cores: int) -> tuple[float, float]:
    """Run a command in a Python that believes in `cores` cores; returns (CPU, wall) seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = {
            "check": ["check", "--full", store],
            "export": ["export", store, f"{scratch}/out"],
            "verify": ["verify", f"{source}/", store],
        }[what]
        command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
        env = environment(cores, Path(scratch))
        before = children_cpu()
        wall = timed(lambda: subprocess.run(command, check=True, env=env, capture_output=True))
        return children_cpu() - before, wall


def _print_virtual(store: Path, source: Path) -> None:
    print(f"{'cores':>6}" + "".join(f"{f'{what}, s':>12}{'speed-up':>10}" for what in COMMANDS))
    first: list[float] = []
    for cores in _VIRTUAL:
        seconds = [virtual(what, store, source, cores) for what in COMMANDS]
        first = first or seconds
        shown = (f"{s:12.2f}{one / s:10.2f}" for s, one in zip(seconds, first, strict=True))
        print(f"{cores:6}" + "".join(shown), flush=True)


def _print_believed(store: Path, source: Path, runs: int) -> None:
    head = "".join(f"{f'{cores} cores':>12}{'ratio':>7}" for cores in _BELIEVED)
    print(f"{'CPU seconds, believed':24}{head}{'wall, 1 by 2':>14}")
    for what in COMMANDS:
        # In turns, so that other programs on the machine disturb all alike.
        found: dict[int, list[tuple[float, float]]] = {cores: [] for cores in _BELIEVED}
        for _ in range(runs):
            for cores, costs in found.items():
                costs.append(believed(what, store, source, cores))
        cpu = {cores: min(cpu for cpu, _ in costs) for cores, costs in found.items()}
        wall = {cores: min(wall for _, wall in costs) for cores, costs in found.items()}
        shown = "".join(f"{each:12.2f}{each / cpu[2]:7.2f}" for each in cpu.values())
        print(f"{what:24}{shown}{wall[1] / wall[2]:14.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=root() / "desk")
    parser.add_argument("--only", choices=("virtual", "believed"))
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        fsmount("init", store)
        fsmount("import", f"{chosen.folder}/", store)
        parts: dict[str, Callable[[], None]] = {
            "virtual": lambda: _print_virtual(store, chosen.folder),
            "believed": lambda: _print_believed(store, chosen.folder, chosen.runs),
        }
        for name, part in parts.items():
            if chosen.only in (None, name):
                part()


if __name__ == "__main__":
    main()
