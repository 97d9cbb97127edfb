"""An evict, or its way back, that dies at any call; and long lives of stores with packs away."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fsmount.remote.pruning import prune
from fsmount.remote.transport import transport_to
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT
from fsmount.store.store import open_read_store, open_store
from tests.support.backups import WANTED, faults, shown
from tests.support.evicting import evicted, lost_network, packs_here, returned, shown_partly, taken
from tests.support.frames import png, screens
from tests.support.remotes import pulled, pushed


class Death(BaseException):
    """The process dies here."""


class DyingDisk(Disk):
    """A disk whose process dies at the n-th call that changes something: before it, or within."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _ask(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Death

    def create(self, path: Path) -> int:
        self._ask()
        return super().create(path)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if self.left == 0:
            super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)
        self._ask()
        return super().pwrite(fd, data, offset)

    def rename(self, old: Path, new: Path) -> None:
        self._ask()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._ask()
        super().unlink(path)

    def fsync(self, fd: int) -> None:
        self._ask()

    def close(self, fd: int) -> None:
        super().close(fd)


def test_death_at_each_call(filled: Path, place: str, caches: Path, tmp_path: Path) -> None:
    """An evict or its way back dies. All files are there, and the command can be repeated."""
    pushed(filled, place)
    shutil.copytree(filled, tmp_path / "here", ignore=shutil.ignore_patterns("lock"))
    evicted(filled, place)
    shutil.copytree(filled, tmp_path / "gone", ignore=shutil.ignore_patterns("lock"))
    for start, step in (("here", evicted), ("gone", returned)):
        count, states = 0, set()
        while True:
            root = tmp_path / "dead"
            shutil.copytree(tmp_path / start, root)
            disk = DyingDisk(count)
            try:
                step(root, place, disk=disk)
            except Death:
                pass
            else:
                break
            finally:
                (root / "lock").unlink(missing_ok=True)
            state = frozenset(packs_here(root)), config.read(root)["format"]
            if state not in states:
                assert shown_partly(root, caches) == WANTED
            states.add(state)
            # Whoever opens it next finishes it, and the same command goes on.
            step(root, place)
            assert shown_partly(root, caches) == WANTED
            assert (packs_here(root) == packs_here(tmp_path / "gone")) == (start == "here")
            shutil.rmtree(root)
            count += 1
        # All here, before and after the record counts; one gone; both gone.
        assert len(states) == 4
        assert count > 20
        shutil.rmtree(tmp_path / "dead")


class Life:
    """A store in use by chance. `model` has its files."""

    def __init__(self, root: Path, url: str, caches: Path, seed: int) -> None:
        self.root = root
        self.url = url
        self.caches = caches
        self.chance = random.Random(seed)
        self.frames = screens(60, seed=seed, height=48)
        self.model: dict[bytes, bytes] = {}

    def take(self) -> None:
        """Files come, without a network. Some have the bytes of others."""
        files: dict[bytes, bytes] = {}
        for _ in range(self.chance.randint(1, 6)):
            name = b"%d" % self.chance.randrange(1 << 60)
            noise = self.chance.randbytes(self.chance.randint(1, 6000))
            some = [png(self.chance.choice(self.frames)), noise, *list(self.model.values())[:1]]
            files[name] = self.chance.choice(some)
        assert taken(self.root, self.caches, files, connect=lost_network) == files
        self.model |= files

    def delete(self) -> None:
        """Files go, and mostly their space."""

        async def work() -> None:
            with open_store(self.root, elsewhere=True) as opened:
                async with opened.running(count=1) as store:
                    for name in self.chance.sample(sorted(self.model), min(3, len(self.model))):
                        store.index.purge(store.index.unlink(ROOT, name, 1).ino)
                        del self.model[name]
                    if self.chance.random() < 0.7:
                        await store.give_back()

        trio.run(work)

    def go(self) -> None:
        """Packs go. The command may die."""
        with open_read_store(self.root, elsewhere=True) as store:
            total = sum(length for length, _ in store.index.packs().values())
        keep = self.chance.randint(0, total)
        self._until_death(lambda disk: evicted(self.root, self.url, keep=keep, disk=disk))

    def come(self) -> None:
        """Packs come back. The command may die."""
        self._until_death(lambda disk: returned(self.root, self.url, disk=disk))

    def _until_death(self, step: Callable[[Disk], object]) -> None:
        try:
            step(DyingDisk(self.chance.randint(0, 120)))
        except Death:
            (self.root / "lock").unlink(missing_ok=True)

    def push(self) -> None:
        """All is pushed, and old states go."""
        remote = transport_to(self.url)
        pushed(self.root, self.url, reread=self.chance.random() < 0.5)
        prune(remote, remote, keep_states=1)

    def repack(self) -> None:
        """All packs come back, and are repacked."""
        returned(self.root, self.url)

        async def work() -> None:
            with open_store(self.root) as opened:
                async with opened.running(count=1) as store:
                    await store.repack(lambda count: None)

        trio.run(work)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_life(
    root: Path,
    place: str,
    caches: Path,
    seed: int,
    small_limits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pictures come and go; pushes, prunes and evicts in any order, some of which die."""
    monkeypatch.setattr("fsmount.store.packs.pack.SEAL_BYTES", 8000)
    life = Life(root, place, caches, seed)
    life.push()
    steps = [life.take, life.take, life.delete, life.go, life.go, life.push, life.repack, life.come]
    for number in range(24):
        life.chance.choice(steps)()
        if number % 6 == 5:
            shutil.rmtree(caches, ignore_errors=True)
            assert shown_partly(root, caches) == life.model
    life.push()
    pulled(place, root.parent / "copy")
    assert shown(root.parent / "copy") == life.model
    returned(root, place)
    assert shown(root) == life.model
    assert faults(root) == []
