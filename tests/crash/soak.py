"""Hours on a real mount: a writer, two readers, a renamer, a deleter and a killer at once.

Every ten seconds the harness prints figures of the daemon: its memory, descriptors and threads, its
workers and their memory, the time that a stat took, and the slowest read since the last figures.

Files whose fsync or close was answered must be there with their bytes, after each kill -9 and at
the end. The goals: the store is whole at the end, and the figures do not grow.

``python -m tests.crash.soak [--minutes N] [--kill-every SECONDS]``
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import trio

from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store
from tests.bench.measure import descendants, memory
from tests.e2e.mounts import Mount
from tests.support.frames import png, screens

_PICTURES = [png(frame) for frame in screens(40)]


class World:
    """The files that must be there: name -> number of the picture. A lock guards each change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.files: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []
        self.slowest = 0.0
        self.slowest_of_all = 0.0
        self.stop = threading.Event()
        self.pause = threading.Event()
        self._next = 0

    def turn(self, kind: str, chance: random.Random) -> None:
        """Do one operation. Forget it if the death of the daemon cuts it short."""
        name = self._take(chance, new=kind == "write")
        if name is None:
            return
        picture = self.files.get(name, -1)
        try:
            after = getattr(self, "_" + kind)(name, picture, chance)
        except OSError:
            # The file is old, new or gone; the program got no answer. The killer pauses us now.
            time.sleep(1)
            return
        with self.lock:
            if after is not None:
                self.files[after[0]] = after[1]
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def _take(self, chance: random.Random, *, new: bool) -> str | None:
        """A new name, or the name of a known file; None if no file is known."""
        with self.lock:
            if new:
                self._next += 1
                return f"{self._next}.png"
            return chance.choice(sorted(self.files)) if self.files else None

    def _write(self, name: str, _: int, chance: random.Random) -> tuple[str, int]:
        number = chance.randrange(len(_PICTURES))
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(fd, _PICTURES[number])
            if chance.random() < 0.2:
                os.fsync(fd)
        finally:
            os.close(fd)
        return name, number

    def _read(self, name: str, picture: int, _: random.Random) -> None:
        begin = time.monotonic()
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if self.files.get(name) == picture and data != _PICTURES[picture]:
            self.wrong.append(f"{name} was read as other bytes")

    def _rename(self, name: str, picture: int, chance: random.Random) -> tuple[str, int] | None:
        with self.lock:
            if self.files.pop(name, None) is None:
                return None
        new = f"{name.removesuffix('.png').split('-')[0]}-{chance.randrange(1000)}.png"
        (self.folder / name).rename(self.folder / new)
        return new, picture

    def _delete(self, name: str, picture: int, _: random.Random) -> None:
        time.sleep(0.02)
        with self.lock:
            if len(self.files) < 200 or self.files.pop(name, None) is None:
                return
        (self.folder / name).unlink()

    def work(self, kind: str, seed: int) -> None:
        """Do operations of one kind until stopped. Runs in a thread."""
        chance = random.Random(seed)
        while not self.stop.is_set():
            if self.pause.is_set():
                time.sleep(0.01)
                continue
            self.turn(kind, chance)

    def check(self) -> None:
        """Compare the bytes of all files that must be there."""
        for name, picture in sorted(self.files.items()):
            try:
                if (self.folder / name).read_bytes() != _PICTURES[picture]:
                    self.wrong.append(f"{name} has other bytes")
            except OSError as error:
                self.wrong.append(f"{name}: {error}")


def figures(pid: int) -> str:
    """Text on a daemon: its memory (shared pages in proportion), descriptors, threads, workers.

    The template of the workers counts as one of them.
    """
    own, theirs = memory(pid)
    descriptors, threads = (len(os.listdir(f"/proc/{pid}/{kind}")) for kind in ("fd", "task"))
    return (
        f"{own >> 20} MB, {descriptors} descriptors, {threads} threads,"
        f" {len(descendants(pid))} workers of {theirs >> 20} MB"
    )


def soak(folder: Path, minutes: float, kill_every: float) -> int:
    """Run the soak; returns the exit code."""
    mount = Mount(folder)
    mount.start()
    world = World(mount.path)
    kinds = ("write", "read", "read", "rename", "delete")
    threads = [
        threading.Thread(target=world.work, args=(kind, seed)) for seed, kind in enumerate(kinds)
    ]
    for thread in threads:
        thread.start()
    end, kills = time.monotonic() + minutes * 60, 0
    try:
        while time.monotonic() < end:
            until = min(end, time.monotonic() + kill_every)
            _watch(mount, world, until)
            _again(mount, world, kill=time.monotonic() < end)
            kills += 1
    finally:
        world.stop.set()
        for thread in threads:
            thread.join()
        mount.clean()
    findings = _findings(mount.store)
    for line in (*world.wrong[:20], *findings[:20]):
        print(line)
    print(f"{world.counts} operations, {kills} kills, slowest read"
          f" {max(world.slowest, world.slowest_of_all):.2f} s,"
          f" {len(world.files)} files, {len(world.wrong) + len(findings)} failed")  # fmt: skip
    return 1 if world.wrong or findings else 0


def _watch(mount: Mount, world: World, until: float) -> None:
    shown = 0.0
    while time.monotonic() < until:
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))
        begin = time.monotonic()
        mount.path.stat()
        wait = time.monotonic() - begin
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            slowest, world.slowest = world.slowest, 0.0
            world.slowest_of_all = max(world.slowest_of_all, slowest)
            print(f"{figures(mount.pid)}, stat {wait:.3f} s, slowest read {slowest:.2f} s,"
                  f" {len(world.files)} files", flush=True)  # fmt: skip


def _again(mount: Mount, world: World, *, kill: bool) -> None:
    """End a round. With `kill`, kill the daemon under load and mount again; without, stop it.

    Checks all files.
    """
    if kill:
        mount.crash()
        world.pause.set()
        time.sleep(0.5)
        mount.clear()
        mount.start()
    else:
        world.pause.set()
        time.sleep(2)
    world.check()
    if not kill:
        world.stop.set()
        mount.stop(drain=True)
    world.pause.clear()


def _findings(path: Path) -> list[str]:
    async def run() -> list[str]:
        opened = open_read_store(path)
        try:
            report = check_relations(opened)
            async with opened.running() as store:
                await check_contents(store, report, _ignore)
            return [f"{what}: {why}" for what, why, _ in report.findings]
        finally:
            opened.close()

    return trio.run(run)


def _ignore(_: int) -> None:
    """Show no progress."""


def main() -> int:
    """Run the command that the module describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kill-every", type=float, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        return soak(Path(scratch), given.minutes, given.kill_every)


if __name__ == "__main__":
    sys.exit(main())
