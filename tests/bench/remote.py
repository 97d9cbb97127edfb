"""Requests and bytes of a store that is mounted from object storage, and what they cost.

    python -m tests.bench.remote [FOLDER_OF_PNGS] [--opens 100] [--latency 0.05] [--json]
    python -m tests.bench.remote --store STORE

The pictures are pushed to moto's server and mounted from there by the kernel, through a proxy that
counts requests and answers each one after `--latency` seconds. First some are opened at random,
cold; then all are read in order by a new mount with an empty cache; then once more by the next
mount. With `--store` the store, for example one of :mod:`tests.bench.synthetic`, is pushed to a
folder instead, and the seconds and the memory of mounting it are measured, with and without its
index.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsmount.mount.unmount import unmount
from fsmount.store.layout import Layout
from tests.bench.measure import machine, memory, quantiles, tell, timed
from tests.bench.ours import fsmount
from tests.support import proxy as proxy_module
from tests.support.buckets import BUCKET, server
from tests.support.corpus import root
from tests.support.proxy import Proxy, proxy

# Dollars, of Amazon S3 Standard in us-east-1: a GET, a LIST, and a GB that leaves for the internet.
_GET, _LIST, _GB = 0.0004 / 1000, 0.005 / 1000, 0.09


@contextmanager
def mounted(url: str, folder: Path) -> Iterator[int]:
    """Mount a URL; yields the process id of the daemon."""
    fsmount("mount", url, folder)
    try:
        yield int(os.getxattr(folder, "user.fsmount.pid"))
    finally:
        unmount(folder)


def counted(name: str, between: Proxy) -> dict[str, object]:
    """Requests and bytes since the last call, and what they cost."""
    seen, between.seen[:] = list(between.seen), []
    answered, between.answered = between.answered, 0
    lists = sum("list-type" in path for _, path, _ in seen)
    cost = (len(seen) - lists) * _GET + lists * _LIST
    return {
        f"{name}_requests": len(seen),
        f"{name}_bytes": answered,
        f"{name}_dollars_requests": f"{cost:.6f}",
        f"{name}_dollars_traffic": f"{answered / 1e9 * _GB:.6f}",
    }


def reading(source: Path, opens: int, scratch: Path, between: Proxy) -> dict[str, object]:
    """The figures of a folder of pictures."""
    store, place, url = scratch / "store", scratch / "mnt", f"s3://{BUCKET}/shots"
    place.mkdir()
    fsmount("init", store)
    fsmount("import", "-q", f"{source}/", store)
    fsmount("push", "-q", store, url)
    counted("", between)
    files = sorted(source.glob("*.png"))
    found: dict[str, object] = {"pictures": len(files), "stored_bytes": _size(store / "packs")}
    between.plan = lambda method, path: "delay"
    with mounted(url, place):
        found |= counted("mount", between)
        chance = random.Random(1)
        chosen = [chance.choice(files) for _ in range(opens)]
        times = [timed(lambda path=path: _same(place, path)) for path in chosen]  # type: ignore[misc]
        found |= counted("random", between)
        found |= _spread("random_ms", times)
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    for name in ("order", "again"):
        with mounted(url, place):
            counted("", between)
            times = [timed(lambda path=path: _same(place, path)) for path in files]  # type: ignore[misc]
            found |= counted(name, between)
            found |= _spread(f"{name}_ms", times)
    return found


def _same(place: Path, path: Path) -> None:
    """Read a picture and compare it."""
    assert (place / path.name).read_bytes() == path.read_bytes(), path


def _spread(name: str, seconds: list[float]) -> dict[str, object]:
    names = ("p50", "p90", "p99", "max")
    return {
        f"{name}_{key}": f"{1000 * value:.1f}"
        for key, value in zip(names, quantiles(seconds), strict=False)
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.zip"))


def mounting(store: Path, scratch: Path) -> dict[str, object]:
    """Seconds and memory of mounting a large index: from a folder of objects, and as a store."""
    place, url = scratch / "mnt", f"file://{scratch}/remote"
    place.mkdir()
    found: dict[str, object] = {"index_bytes": Layout(store).index.stat().st_size}
    # The rows of a synthetic store share one entry, which a push calls damage.
    push = [sys.executable, "-m", "fsmount", "push", "-q", str(store), url]
    found["push_s"] = timed(lambda: subprocess.run(push, check=False, capture_output=True))
    found["index_objects_bytes"] = sum(
        path.stat().st_size for path in (scratch / "remote/index").iterdir()
    )
    for name in ("first", "again", "again2"):
        start = time.perf_counter()
        with mounted(url, place) as pid:
            found[f"mount_{name}_s"] = time.perf_counter() - start
            found[f"mount_{name}_bytes"] = memory(pid)[0]
            if name == "again2":
                found["find_s"] = timed(
                    lambda: subprocess.run(["find", place], check=True, stdout=subprocess.DEVNULL)
                )
                found["after_find_bytes"] = memory(pid)[0]
    start = time.perf_counter()
    fsmount("mount", "-o", "ro", store, place)
    found["mount_local_s"] = time.perf_counter() - start
    pid = int(os.getxattr(place, "user.fsmount.pid"))
    found["mount_local_bytes"] = memory(pid)[0]
    subprocess.run(["find", place], check=True, stdout=subprocess.DEVNULL)
    found["after_find_local_bytes"] = memory(pid)[0]
    unmount(place)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=root() / "desk")
    parser.add_argument("--opens", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--store", type=Path, help="measure the mounting of this store")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(scratch / "caches")
        if chosen.store:
            found = mounting(chosen.store, scratch)
        else:
            proxy_module._DELAY_S = chosen.latency
            with server("moto", scratch / "moto") as port, proxy(port) as between:
                os.environ |= {
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{between.port}",
                    "AWS_ACCESS_KEY_ID": "key",
                    "AWS_SECRET_ACCESS_KEY": "secret",
                }
                found = reading(chosen.folder, chosen.opens, scratch, between)
    tell({**machine(), **found}, as_json=chosen.json)


if __name__ == "__main__":
    main()
