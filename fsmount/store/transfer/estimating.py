"""Estimates the size that a folder would take in a store, from a sample of its files.

The estimate imports stretches of consecutive pictures, spread over the whole folder, into a
temporary store. The store lies in memory, or else in a temporary folder, and is removed afterwards.
Stretches are whole because a picture costs only what is new since the pictures before it. The first
picture of a stretch costs more than a later one would, so its cost counts only once.

In a legacy folder, all earlier pictures of a run must be made before a picture deep in that run. So
stretches near the beginnings of runs come first, and a stretch that needs more time than is left is
skipped. JPEGs do not share data with each other: the estimate looks at a few of them, from all over
the folder.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise, zip_longest
from pathlib import Path

from fsmount.codec.images import jpeg
from fsmount.legacy.runs import scan
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.frames.known_tiles import MAX_TILES
from fsmount.store.frames.tile_keys import KEY_BITS
from fsmount.store.ingest.large import KEEP_BYTES
from fsmount.store.maintenance import copies
from fsmount.store.packs import parity
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import Item, Progress, Summary, find, walk
from fsmount.store.writable_store import WritableStore

STRETCH = 15
WHOLE = 150
"""Up to this many pictures are encoded whole: a few of them can make most of their size."""

# Stretches are ordered by their depth in a run, in steps of this many pictures. Making one picture
# of a run takes about `_MAKE_S` seconds.
_REACH = 40
_MAKE_S = 0.05
# One stretch in this many counts as busy: the stretches whose file sizes change most.
_BUSY_SHARE = 3
_MEMORY = Path("/dev/shm")
_PICTURES = (".png", ".PNG", ".jxl")
_JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif")
_MOST_JPEGS = 24
# Share of the time limit for pictures that JPEGs may take on top.
_JPEG_TIME = 0.25
# Twice the standard error: the interval contains the true value in 19 of 20 cases.
_SIGMAS = 2.0
# Least relative error, even if everything was sampled. The order of encoding and other work on the
# machine cause it.
_LEAST_SHARE = 0.02
# Least relative error of a partial sample. A part costs more than the whole: pictures between the
# stretches show content that later pictures would copy.
_PART_SHARE = 0.15


@dataclass
class Estimate:
    """Result of `fsmount estimate`. Sizes in bytes, times in seconds.

    `files` and `bytes` count all files that are not folders. `low` and `high` bound `stored_bytes`.
    `raw` counts the reasons why some of the `sampled` pictures are stored raw. `lost` lists (path,
    reason) for sampled pictures of broken runs. `jpegs` is the number of JPEGs that may become
    smaller. The estimate transcoded `jpegs_sampled` of them, to `jpeg_share` of their size.
    `seconds` is the time that the import of all pictures and JPEGs would take. `problems` lists
    (path, reason) for files that could not be read.
    """

    files: int = 0
    bytes: int = 0
    pictures: int = 0
    sampled: int = 0
    raw: Counter[str] = field(default_factory=Counter)
    lost: list[tuple[str, str]] = field(default_factory=list)
    jpegs: int = 0
    jpegs_sampled: int = 0
    jpeg_share: float = 1.0
    stored_bytes: int = 0
    low: int = 0
    high: int = 0
    seconds: float = 0.0
    problems: list[tuple[str, str]] = field(default_factory=list)


def _spread(count: int) -> Iterator[int]:
    """Yield 0 to `count` - 1 in bit-reversed order: any prefix is spread over the range."""
    bits = max(1, (count - 1).bit_length())
    for number in range(1 << bits):
        at = int(f"{number:0{bits}b}"[::-1], 2)
        if at < count:
            yield at


def _depths(pictures: Sequence[Item]) -> dict[Path, int]:
    """Map each picture that is kept as a difference to the number of pictures made before it.

    Folders that cannot be read are left out.
    """
    folders = {item.source.parent for item in pictures if item.source.suffix == ".jxl"}
    found = {}
    for folder in folders:
        with suppress(OSError):
            for name, (_, place) in scan(folder).positions.items():
                found[folder / os.fsdecode(name)] = place
    return found


def _strata(
    pictures: Sequence[Item], depths: Mapping[Path, int]
) -> tuple[list[list[Item]], list[list[Item]]]:
    """Return the busy stretches and the quiet stretches, each in sampling order.

    Pictures that differ much mostly differ in file size. Few such pictures make most of the size of
    a folder. All pictures form one busy stretch if there are at most WHOLE of them.
    """
    if len(pictures) <= WHOLE:
        return [list(pictures)] if pictures else [], []
    stretches = [list(pictures[at : at + STRETCH]) for at in range(0, len(pictures), STRETCH)]
    by_change = sorted(stretches, key=_change, reverse=True)
    busy = by_change[: len(stretches) // _BUSY_SHARE]
    names = {id(stretch) for stretch in busy}
    in_order = [stretch for stretch in stretches if id(stretch) in names]
    quiet = [stretch for stretch in stretches if id(stretch) not in names]
    return _ordered(in_order, depths), _ordered(quiet, depths)


def _ordered(stretches: Sequence[list[Item]], depths: Mapping[Path, int]) -> list[list[Item]]:
    """Order stretches: spread over the folder, shallow positions in their runs first."""
    spread = [stretches[at] for at in _spread(len(stretches))]
    return sorted(spread, key=lambda stretch: depths.get(stretch[0].source, 0) // _REACH)


def _change(stretch: Sequence[Item]) -> int:
    """Sum of the changes of file size within a stretch, in bytes."""
    return sum(abs(a.info.st_size - b.info.st_size) for a, b in pairwise(stretch))


async def estimate(source: Path, limit_s: float, progress: Progress) -> Estimate:
    """Scan `source` and import samples of its files for about `limit_s` seconds.

    Uses `/dev/shm` for the temporary store if it is writable. Raises OSError and FsmountError if
    the temporary store fails.
    """
    found = Estimate()
    summary = Summary()
    pictures, jpegs = [], []
    other_bytes = 0
    for item in walk(source, b"", summary):
        if stat.S_ISDIR(item.info.st_mode):
            continue
        found.files += 1
        found.bytes += item.info.st_size
        if stat.S_ISREG(item.info.st_mode) and item.source.suffix in _PICTURES:
            pictures.append(item)
        elif _is_jpeg(item):
            jpegs.append(item)
        elif stat.S_ISREG(item.info.st_mode):
            other_bytes += item.info.st_blocks * 512
    found.pictures, found.jpegs = len(pictures), len(jpegs)
    found.problems = summary.problems
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fsmount-estimate-", dir=place) as scratch:
        sample = _Sample(Path(scratch) / "store", pictures, jpegs, limit_s)
        await sample.take(found, progress)
    _extrapolate(found, sample, other_bytes, sum(item.info.st_size for item in jpegs))
    return found


def _is_jpeg(item: Item) -> bool:
    """Whether a file may become a JPEG XL file."""
    suffix, size = item.source.suffix.lower(), item.info.st_size
    regular = stat.S_ISREG(item.info.st_mode)
    return jpeg.available() and regular and suffix in _JPEGS and 0 < size <= KEEP_BYTES


class _Sample:
    """Stretches of pictures, imported under names that are numbers.

    `strata` holds all busy stretches and all quiet ones. `costs` holds, for each stratum and each
    sampled stretch, the bytes that each picture takes. `index` is the number of other bytes in the
    store. It includes `empty`, the bytes of an empty store. Not included are `tiles`, the bytes of
    the tiles that the planner knows, and `names`, those of the copy of the index. `shares` lists
    (bytes, bytes in the store) of the sampled JPEGs.
    """

    def __init__(
        self, root: Path, pictures: Sequence[Item], jpegs: Sequence[Item], limit_s: float
    ) -> None:
        self._root = root
        self._jpegs = jpegs
        self._limit_s = limit_s
        self._start = 0.0
        self._targets: tuple[list[list[bytes]], list[list[bytes]]] = ([], [])
        self._depths = _depths(pictures)
        # Seconds spent on making pictures that are not part of the sample.
        self._aside = 0.0
        self.strata = _strata(pictures, self._depths)
        self.costs: list[list[list[int]]] = [[], []]
        self.index = self.empty = self.tiles = self.names = 0
        self.shares: list[tuple[int, int]] = []

    async def take(self, found: Estimate, progress: Progress) -> None:
        """Import as many samples as the time limit allows. Fills in `found` and the attributes."""
        # The estimate adds the parity of the whole folder.
        config.make(self._root, Disk(), parity=0)
        with open_store(self._root) as opened:
            async with opened.running() as store:
                self.empty = store.stats()["stored_bytes"]
                importer = Importer(store, progress)
                self._start = time.monotonic()
                await importer.take(self._items(store))
                taken = time.monotonic() - self._start
                store.save_tiles()
                stats = store.stats()
                self.tiles = store.index.tiles_bytes()
                self.names = len(copies.collect(store.index))
                jpeg_seconds = await self._take_jpegs(store, progress)
            found.raw = Counter(stats["raw_reasons"])
            found.sampled, found.lost = importer.summary.files, importer.summary.problems
            taken = max(0.0, taken - self._aside)
            found.seconds = taken / max(1, found.sampled) * found.pictures + jpeg_seconds
            self.costs = [
                [[_cost(opened, name) for name in names] for names in targets]
                for targets in self._targets
            ]
            paid = sum(sum(map(sum, costs)) for costs in self.costs)
            self.index = stats["stored_bytes"] - paid - self.tiles

    async def _take_jpegs(self, store: WritableStore, progress: Progress) -> float:
        """Import a few JPEGs. Returns the seconds that all JPEGs would take."""
        some = [self._jpegs[at] for at in _spread(len(self._jpegs))][:_MOST_JPEGS]
        names = [b"%d.jpg" % number for number in range(len(some))]
        start = time.monotonic()

        def items() -> Iterator[Item]:
            for number, (name, item) in enumerate(zip(names, some, strict=True)):
                if number and time.monotonic() - start > _JPEG_TIME * self._limit_s:
                    return
                yield replace(item, target=name)

        await Importer(store, progress).take(items())
        costs = [
            (item.info.st_size, _cost(store, name)) for name, item in zip(names, some, strict=True)
        ]
        # A JPEG that equals another one costs nothing, so it does not count.
        self.shares = [pair for pair in costs if pair[1]]
        seconds = time.monotonic() - start
        return seconds / max(1, len(self.shares)) * len(self._jpegs)

    def _items(self, store: WritableStore) -> Iterator[Item]:
        """Yield pictures to import, busy and quiet stretches in turn, up to the time limit."""
        fed = 0
        for pair in zip_longest(*self.strata):
            for targets, stretch in zip(self._targets, pair, strict=True):
                passed = time.monotonic() - self._start
                # Include the time that pending pictures will take.
                if fed and passed * fed / max(1, fed - store.pending()) > self._limit_s:
                    return
                if stretch is None:
                    continue
                depth = self._depths.get(stretch[0].source, 0)
                if fed and depth * _MAKE_S > self._limit_s - passed:
                    continue
                targets.append([])
                for item in stretch:
                    name = b"%09d.png" % fed
                    fed += 1
                    targets[-1].append(name)
                    began = time.monotonic()
                    yield replace(item, target=name)
                    if item is stretch[0]:
                        self._aside += (time.monotonic() - began) * depth / (depth + 1)


def _cost(store: StoreFiles, name: bytes) -> int:
    """Bytes of the object that a sampled file became: 0 if it equals another file."""
    inode = find(store, name)
    if inode is None or inode.object_id is None:
        return 0
    return store.index.object(inode.object_id).length


def _of_jpegs(found: Estimate, sample: _Sample, jpeg_bytes: int) -> float:
    """Set the JPEG figures of `found`.

    Returns their uncertainty in bytes: how much more or less than estimated the JPEGs may take.
    """
    if not sample.shares:
        return 0.0
    found.jpegs_sampled = count = len(sample.shares)
    found.jpeg_share = sum(cost for _, cost in sample.shares) / sum(
        size for size, _ in sample.shares
    )
    if count == found.jpegs:
        return _LEAST_SHARE * found.jpeg_share * jpeg_bytes
    variance = sum((cost / size - found.jpeg_share) ** 2 for size, cost in sample.shares)
    return (_LEAST_SHARE + _SIGMAS * math.sqrt(variance) / count) * jpeg_bytes


def _extrapolate(found: Estimate, sample: _Sample, other_bytes: int, jpeg_bytes: int) -> None:
    """Extrapolate from the sampled stretches to the whole folder: set the sizes of `found`."""
    first = max((costs[0] for part in sample.costs for costs in part if costs), default=0)
    coded, variance = float(first), 0.0
    known = [cost for part in sample.costs for costs in part for cost in costs[1:]] or [first]
    for stretches, costs in zip(sample.strata, sample.costs, strict=True):
        there = sum(map(len, stretches))
        looked_at = [one[1:] for one in costs if len(one) > 1]
        count = sum(map(len, looked_at))
        if count + 1 >= there:
            coded += sum(map(sum, looked_at))
            continue
        if not count:
            coded += there * sum(known) / len(known)
            variance = math.inf
            continue
        mean = sum(map(sum, looked_at)) / count
        coded += mean * there
        means = [sum(one) / len(one) for one in looked_at]
        if len(means) < 2:
            variance = math.inf
        else:
            spread = sum((one - mean) ** 2 for one in means) / (len(means) - 1)
            variance += spread / len(means) * (there - count) * there
    scale = found.pictures / max(1, found.sampled)
    index = sample.empty + (sample.index - sample.empty + sample.names) * scale
    index += min(sample.tiles * scale, MAX_TILES * KEY_BITS / 8)
    jpeg_spread = _of_jpegs(found, sample, jpeg_bytes)
    packed = int(other_bytes + found.jpeg_share * jpeg_bytes + coded)
    found.stored_bytes = int(packed + parity.size_of(packed, config.PARITY_PERCENT) + index)
    least = _LEAST_SHARE if found.sampled >= found.pictures else _PART_SHARE
    spread = min(coded, least * coded + _SIGMAS * math.sqrt(variance))
    spread += jpeg_spread
    found.low, found.high = int(found.stored_bytes - spread), int(found.stored_bytes + spread)
