"""The cost of exactness through the mount, in units of one stock deflate of the same frame.

    python -m tests.bench.mounted [FOLDER_OF_PNGS [COUNT]]

The benchmark uses the first COUNT frames (all: 0; default 60). Their encoder must have used level 6
and Z_FILTERED. It measures:

- a file opened cold and read whole; each in a new mount that has a running worker and no more;
- files opened at random, one after the other;
- the folder read in name order, per frame;
- the check at ingest (filters, deflate and comparison, as `parse` does them), of a frame by itself
  and of consecutive frames.

The figures are CPU seconds of the daemon and its workers, and wall time. Each is divided by the CPU
seconds of one `zlib.compressobj(6, ..., Z_FILTERED)` of the frame, measured in between. Then the
benchmark prints the share of each stage.
"""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from fsmount.codec.deflate import deflate
from fsmount.codec.delta import delta
from fsmount.codec.images import images
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import filters, png, samples
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import Key, Loan, SharedLayer
from fsmount.store.index import ROOT, Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.location import Location
from tests.bench.deflate import scanlines, timed, with_zlib
from tests.bench.latency import staged
from tests.bench.measure import descendants
from tests.e2e.mounts import Mount
from tests.support.corpus import root
from tests.support.encoding import forget_caches
from tests.support.pngs import image_data

_COLD = 12
_LIKE_LIBPNG = (6, 1, 8, 15)
_WORKER_BYTES = 128 << 20


def stock(path: Path) -> float:
    """CPU seconds of one stock deflate of a file's scanlines."""
    return timed(with_zlib, scanlines(path), *_LIKE_LIBPNG)[0] / 1000


def cpu(pid: int) -> float:
    """CPU seconds so far of a process and its running descendants."""
    # The id of another process's CPU clock, see clock_getcpuclockid(3).
    return sum(time.clock_gettime(~each << 3 | 2) for each in (pid, *descendants(pid)))


def settled(pid: int) -> float:
    """Wait until the process is idle; returns its CPU seconds as :func:`cpu`."""
    now = cpu(pid)
    while True:
        time.sleep(0.3)
        before, now = now, cpu(pid)
        if now - before < 0.002:
            return now


def show(name: str, ratios: Sequence[float], wanted: float | None = None) -> None:
    low, middle, high = statistics.quantiles(ratios, n=10)[::4]
    goal = f"   wanted {wanted:.2f}" if wanted else ""
    print(f"{name:42}{middle:8.2f}{low:8.2f}{high:8.2f}{statistics.mean(ratios):8.2f}{goal}")


def opened(mount: Mount, path: Path) -> tuple[float, float]:
    """Read one file whole; returns (CPU seconds of the daemon and its workers, wall seconds)."""
    before = settled(mount.pid)
    start = time.perf_counter()
    data = (mount.path / path.name).read_bytes()
    wall = time.perf_counter() - start
    spent = settled(mount.pid) - before
    assert data == path.read_bytes()
    return spent, wall


def cold(files: Sequence[Path], tiny: Path, mount: Mount) -> None:
    """Open each file in a new mount that has read only a tiny file, so that a worker runs."""
    starts, times, walls = [], [], []
    for path in files:
        mount.start()
        try:
            started, _ = opened(mount, tiny)
            spent, wall = opened(mount, path)
            mount.stop()
        finally:
            mount.clean()
        unit = stock(path)
        starts.append(started / unit)
        times.append(spent / unit)
        walls.append(wall / unit)
    show("cold open, CPU", times, 0.6)
    show("cold open, wall", walls)
    show("start of the worker before, CPU", starts)


def at_random(files: Sequence[Path], mount: Mount) -> None:
    """Open files in random order, one after the other."""
    mount.start()
    try:
        opened(mount, files[0])
        times, walls = [], []
        for path in files[1:]:
            spent, wall = opened(mount, path)
            unit = stock(path)
            times.append(spent / unit)
            walls.append(wall / unit)
        mount.stop()
    finally:
        mount.clean()
    show("open at random, CPU", times, 0.6)
    show("open at random, wall", walls)


def in_order(files: Sequence[Path], mount: Mount) -> None:
    """Read the folder once, in name order."""
    mount.start()
    times, walls = [], []
    try:
        for some in (files[i : i + 10] for i in range(0, len(files), 10)):
            before = settled(mount.pid)
            start = time.perf_counter()
            for path in some:
                (mount.path / path.name).read_bytes()
            wall = time.perf_counter() - start
            spent = settled(mount.pid) - before
            # The daemon renders one frame ahead. So these ten paid for the first frame of the next
            # ten, and the previous ten paid for the first of these.
            unit = sum(map(stock, some))
            times.append(spent / unit)
            walls.append(wall / unit)
        mount.stop()
    finally:
        mount.clean()
    show("in order, a frame, CPU", times[1:], 0.2)
    show("in order, a frame, wall", walls[1:])
    print(f"   the first ten, with what starts the worker: {times[0]:.2f}")


Stages = dict[str, float]

_RENDER = {
    "payload": (images, "decode"),
    "layers": (delta, "layer"),
    "compose": (delta, "compose"),
    "filters": (filters, "apply"),
    "deflate": (deflate, "deflate"),
    "file around it": (png, "_file"),
}
_CHECK = {
    "filters": (filters, "apply"),
    "deflate": (deflate, "search"),
    "file around it": (png, "_file"),
}
_LOOK = {
    "inflate": (png, "_inflate"),
    "undo filters": (filters, "undo"),
    "frame": (samples, "from_rows"),
    "alpha": (samples, "drop_alpha"),
    **_CHECK,
}


@contextmanager
def stages(parts: dict[str, tuple[Any, str]]) -> Iterator[Stages]:
    """Measure the CPU seconds of this process in some functions, for the duration of the block."""
    spent: Stages = defaultdict(float)

    def measured(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.process_time() - start

    with ExitStack() as stack:
        for name, (module, function) in parts.items():
            real = getattr(module, function)
            stack.enter_context(mock.patch.object(module, function, partial(measured, name, real)))
        yield spent


def check(files: Sequence[Path]) -> None:
    """Measure the part of `parse` that checks exactness."""
    for name, budget, wanted in (("by itself", 0, 0.3), ("consecutive", _WORKER_BYTES, 0.15)):
        memory = WorkerMemory()
        memory.streams.resize(budget)
        ratios, units, walls = [], [], []
        total: Stages = defaultdict(float)
        whole = 0.0
        hint = deflate.DeflateParams(*_LIKE_LIBPNG)
        for path in files:
            with stages(_LOOK) as spent:
                start = time.process_time()
                png.parse(path.read_bytes(), [hint], memory=memory)
                whole += time.process_time() - start
            units.append(stock(path))
            if not budget:
                walls.append(alone(path, hint) / units[-1])
            ratios.append(sum(spent[stage] for stage in _CHECK) / units[-1])
            for stage, seconds in spent.items():
                total[stage] += seconds
        show(f"check at ingest, {name}, CPU", ratios, wanted)
        if walls:
            show("   its deflate, wall, on two threads", walls, wanted)
        print(f"   with the rest of parse: {whole / sum(units):.2f}")
        shares(total, whole, sum(units))


def alone(path: Path, params: deflate.DeflateParams) -> float:
    """Wall seconds to make a picture's stream again, as by a worker that has only this picture."""
    stream = image_data(path.read_bytes())
    raw = zlib.decompress(stream)
    row_bytes = len(raw) // int.from_bytes(path.read_bytes()[20:24], "big")
    start = time.perf_counter()
    body = deflate.deflate(raw, params, row_bytes=row_bytes, threads=2)
    assert body == stream[2:-4]
    return time.perf_counter() - start


def shares(total: Stages, whole: float, unit: float) -> None:
    """Print one line with the cost of each stage, in the same unit."""
    total["else"] = whole - sum(total.values())
    print("   " + ", ".join(f"{name} {seconds / unit:.3f}" for name, seconds in total.items()))


def render(store: Path, files: Sequence[Path]) -> None:
    """Measure `jobs.render` as a worker runs it: cold, and from frame to frame."""
    index = Index(Layout(store).index, Disk(), read_only=True)
    for cold in (True, False):
        total: Stages = defaultdict(float)
        whole = unit = 0.0
        layers: dict[Key, SharedLayer] = {}
        for path in files:
            if cold:
                forget_caches()
                layers.clear()
            inode = index.lookup(ROOT, path.name.encode())
            assert inode is not None and inode.object_id is not None
            found = [index.object(i) for i in index.object(inode.object_id).needs]
            target = index.object(inode.object_id)
            places = [place(store, each) for each in found if each.id != target.id]
            with stages(_RENDER) as spent:
                start = time.process_time()
                lent = tuple(layers[key] for p in places if (key := (p.pack, p.id)) in layers)
                loan = Loan(_WORKER_BYTES, lent)
                done = jobs.render(place(store, target), places, target.sha256, loan)
                layers |= {layer.key: layer for layer in done.made}
                whole += time.process_time() - start
            unit += stock(path)
            for stage, seconds in spent.items():
                total[stage] += seconds
        name = "cold" if cold else "in order"
        print(f"render in a worker, {name}: {whole / unit:.3f}")
        shares(total, whole, unit)
    index.close()


def place(store: Path, found: Object) -> Location:
    return Location(found.id, str(Layout(store).pack(found.pack)), found.offset, found.length)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "desk"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    files = sorted(folder.glob("*.png"))[: count or None]
    shuffled = random.Random(1).sample(files, min(_COLD + 1, len(files)))
    with tempfile.TemporaryDirectory() as name:
        tiny = Path(name) / "tiny.png"
        Image.new("RGB", (8, 8)).save(tiny)
        mount = Mount(Path(name))
        mount.start()
        try:
            before, start = settled(mount.pid), time.perf_counter()
            for path in [*files, tiny]:
                shutil.copy(path, mount.path)
            while staged(mount):
                time.sleep(0.1)
            wall, spent = time.perf_counter() - start, settled(mount.pid) - before
            mount.stop()
        finally:
            mount.clean()
        unit = sum(map(stock, files))
        head = "in stock deflates of the same frame"
        print(f"{head:42}{'median':>8}{'p10':>8}{'p90':>8}{'mean':>8}")
        print(f"a stock deflate: {1000 * unit / len(files):.0f} ms")
        print(f"ingest, all of it, a frame: CPU {spent / unit:.2f}, wall {wall / unit:.2f}")
        cold(shuffled, tiny, Mount(Path(name)))
        at_random(shuffled, Mount(Path(name)))
        in_order(files, Mount(Path(name)))
        check(files)
        render(Path(name) / "store", files)


if __name__ == "__main__":
    main()
