"""A store of a million files: mounting, listing, memory, and index bytes per file.

    python -m tests.bench.scale [--files 1000000] [--folder 25000] [--shared] [--json] [--store DIR]

The store is synthetic (:mod:`tests.bench.synthetic`). `--store` keeps it at that path, or uses the
store that is already there. `ls -l` runs in turn over folders of the store and of a filesystem that
does nothing (:mod:`tests.bench.nothing`); the ratio is the ratio of the medians. The memory of the
daemon per file is its growth while `find` shows every file to the kernel. The first `umount`
follows after `find`. The second follows after one file was written; it makes the copy of the index
anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from fsmount.mount.unmount import unmount
from fsmount.store.layout import Layout
from tests.bench import nothing, synthetic
from tests.bench.measure import Watch, machine, memory, processor_ns, tell, timed
from tests.bench.ours import fsmount

_LISTINGS = 9
_MOUNTS = 5


@contextmanager
def mounted(store: Path, folder: Path) -> Iterator[int]:
    """Mount the store on `folder` with the command `mount`; yields the process id of the daemon."""
    fsmount("mount", store, folder)
    try:
        yield int(os.getxattr(folder, "user.fsmount.pid"))
    finally:
        unmount(folder)


def run(*command: str | Path) -> float:
    """Wall seconds of a program, with its output discarded."""
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def children_cpu() -> float:
    """CPU seconds of all ended child processes."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def mounting(store: Path, folder: Path) -> dict[str, float]:
    """Median seconds until `fsmount mount` returns, and its CPU seconds with those of the daemon.

    Also the seconds that the start of any command takes; they are part of the first figure.
    """
    times, cpus, starts = [], [], []
    for _ in range(_MOUNTS):
        starts.append(timed(lambda: fsmount("--version")))
        start, cpu = time.perf_counter(), children_cpu()
        with mounted(store, folder) as pid:
            times.append(time.perf_counter() - start)
            cpus.append(children_cpu() - cpu + processor_ns(pid) / 1e9)
    return {
        "mount_s": median(times),
        "mount_cpu_s": median(cpus),
        "start_of_any_command_s": median(starts),
    }


def listing(ours: tuple[Path, int], theirs: tuple[Path, int]) -> dict[str, float]:
    """Wall and CPU seconds of `ls -l` on folders not listed before, of both filesystems in turn."""
    walls: dict[str, list[float]] = {"ls": [], "nothing_ls": []}
    cpus: dict[str, list[float]] = {"ls": [], "nothing_ls": []}
    folders = sorted(path.name for path in theirs[0].iterdir())[:_LISTINGS]
    for name in folders:
        for what, (place, pid) in (("ls", ours), ("nothing_ls", theirs)):
            before = processor_ns(pid) / 1e9 + children_cpu()
            walls[what].append(run("ls", "-l", place / name))
            cpus[what].append(processor_ns(pid) / 1e9 + children_cpu() - before)
    wall, cpu = ({what: median(values) for what, values in each.items()} for each in (walls, cpus))
    return {
        "ls_s": wall["ls"],
        "ls_nothing_s": wall["nothing_ls"],
        "ls_ratio": wall["ls"] / wall["nothing_ls"],
        "ls_cpu_s": cpu["ls"],
        "ls_nothing_cpu_s": cpu["nothing_ls"],
        "ls_cpu_ratio": cpu["ls"] / cpu["nothing_ls"],
    }


def finding(folder: Path, pid: int, files: int) -> dict[str, float]:
    """Run `find` over all files; measure the daemon's memory per file that the kernel now knows."""
    before, cpu = memory(pid)[0], processor_ns(pid)
    wall = run("find", folder)
    cpu = processor_ns(pid) - cpu
    return {
        "find_s": wall,
        "find_daemon_cpu_s": cpu / 1e9,
        "daemon_bytes": memory(pid)[0],
        "daemon_bytes_per_file": (memory(pid)[0] - before) / files,
    }


def ending(store: Path, folder: Path) -> dict[str, float]:
    """Unmount after one new file; returns the seconds and the daemon's peak memory meanwhile."""
    fsmount("mount", store, folder)
    pid = int(os.getxattr(folder, "user.fsmount.pid"))
    (folder / "new.txt").write_text("new")
    with Watch(pid) as watch:
        took = timed(lambda: unmount(folder))
    copy = Layout(store).names_copy.stat().st_size
    return {"umount_changed_s": took, "umount_changed_bytes": watch.peak[0], "names_gz_bytes": copy}


def commands(store: Path) -> dict[str, float]:
    """CPU seconds and peak bytes of memory of commands that read the index."""
    found: dict[str, float] = {}
    name = b"%08d" % 0
    for verb, *rest in (("stats",), ("ls", os.fsdecode(name)), ("check",)):
        used = _usage(lambda verb=verb, rest=rest: fsmount(verb, store, *rest))  # type: ignore[misc]
        found |= {f"fsmount_{verb}_cpu_s": used[0], f"fsmount_{verb}_bytes": used[1]}
    return found


def _usage(action: Callable[[], object]) -> tuple[float, int]:
    """Run an action in a fork; returns CPU seconds and peak bytes of the children it starts."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        action()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(sender, json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss << 10]).encode())
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        cpu, peak = json.loads(pipe.read())
    os.waitpid(child, 0)
    return cpu, peak


def measure(store: Path, scratch: Path, files: int, per_folder: int) -> dict[str, object]:
    """Measure all figures."""
    ours, theirs = scratch / "ours", scratch / "theirs"
    for each in (ours, theirs):
        each.mkdir()
    index = Layout(store).index.stat().st_size
    found: dict[str, object] = {**machine(), "files": files, "index_bytes_per_file": index / files}
    found |= mounting(store, ours)
    with mounted(store, ours) as pid, nothing.mounted(theirs, files, per_folder) as other:
        found |= listing((ours, pid), (theirs, other))
    with mounted(store, ours) as pid:
        found |= finding(ours, pid, files)
        end = time.perf_counter()
    found["umount_s"] = time.perf_counter() - end
    return {**found, **ending(store, ours), **commands(store)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=synthetic.FILES)
    parser.add_argument("--folder", type=int, default=synthetic.FOLDER)
    parser.add_argument("--shared", action="store_true", help="all files show the same object")
    parser.add_argument("--store", type=Path, help="where the store is, or is to be kept")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = chosen.store or Path(scratch) / "store"
        if not store.exists():
            synthetic.fill(store, chosen.files, chosen.folder, shared=chosen.shared)
        found = measure(store, Path(scratch), chosen.files, chosen.folder)
    tell(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
