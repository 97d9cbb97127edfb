"""How an import uses more cores: its speed-up on virtual cores, and its CPU time on believed ones.

    python -m tests.bench.cores [FOLDER_OF_PNGS] [--frames 120] [--only PART] [--save FILE]

*virtual*: FOLDER is imported once to record its jobs, and replayed on 1 to 32 virtual cores
(:mod:`tests.bench.replay`). The replay is deterministic; the recorded times are those of this run.
"Jobs" is the speed-up if the process that owns the store took no time, "with owner" counts its
thread, too. `--save` keeps the times as the file that `tests/contract/test_cores.py` reads.

*believed*: `fsmount import` in a Python that is told to have 2, 4, 8 or 16 cores, as are its
workers. Prints the CPU seconds of all its processes, and their ratio to the run with 2 cores. The
folders are FOLDER, and two generated ones with photographs as wallpapers, of `--frames` pictures of
1920 x 1080, and half as many of 3840 x 2160. Wall time says little where fewer cores are real.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench.measure import machine, timed
from tests.bench.ours import fsmount
from tests.bench.replay import record, replay
from tests.bench.scale import children_cpu
from tests.bench.screenshots import fill
from tests.bench.wallpapers import photographs
from tests.support.corpus import root
from tests.support.paths import CHECKOUT

_VIRTUAL = (1, 2, 4, 8, 16, 32)
_BELIEVED = (2, 4, 8, 16)
# Python imports this module at its start. Workers inherit the path that leads to it.
_TELLS_CORES = """\
import os
os.sched_getaffinity = lambda pid: set(range({cores}))
"""


def virtual(folder: Path, save: Path | None) -> None:
    """Print the speed-ups of an import of `folder` on virtual cores."""
    recording = record(folder)
    times = recording.times()
    files = len(list(folder.glob("*.png")))
    for name, seconds in times.items():
        mean = 1000 * sum(seconds) / len(seconds)
        print(f"{name}: {len(seconds)} jobs, {mean:.1f} ms, at most {1000 * max(seconds):.0f}")
    owner_s = recording.owner_s * sum(map(len, times.values())) / files
    print(f"the owner's thread: {1000 * owner_s:.1f} ms a file")
    print(f"{'cores':>6}{'files/s':>12}{'speed-up':>10}{'with owner':>14}{'speed-up':>10}")
    first: list[float] = []
    for cores in _VIRTUAL:
        seconds = [replay(replace(recording, owner_s=0.0), cores), replay(recording, cores)]
        first = first or seconds
        shown = [(files / s, one / s) for s, one in zip(seconds, first, strict=True)]
        print(
            f"{cores:6}{shown[0][0]:12.1f}{shown[0][1]:10.2f}{shown[1][0]:14.1f}{shown[1][1]:10.2f}"
        )
    if save is not None:
        rounded = {name: [round(s, 4) for s in seconds] for name, seconds in times.items()}
        save.write_text(json.dumps(rounded) + "\n")


def believed(folder: Path, cores: int) -> tuple[float, float]:
    """Import a folder in a Python that believes in `cores` cores; returns (CPU, wall) seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        store = str(Path(scratch) / "store")
        fsmount("init", store)
        env = environment(cores, Path(scratch))
        command = [sys.executable, "-m", "fsmount", "import", str(folder), store]
        before = children_cpu()
        wall = timed(lambda: subprocess.run(command, check=True, env=env, capture_output=True))
        return children_cpu() - before, wall


def environment(cores: int, scratch: Path) -> dict[str, str]:
    """The environment of a Python that believes in `cores` cores. Puts a module into `scratch`."""
    (scratch / "sitecustomize.py").write_text(_TELLS_CORES.format(cores=cores))
    found = str(scratch), os.environ.get("PYTHONPATH", ""), str(CHECKOUT)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}


def folders(given: Path, frames: int, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The folders to import, with their names. Generated ones are made when they are needed."""
    yield given.name, given
    pictures, origin = photographs()
    print(f"wallpapers: {origin}")
    for width, height, count in ((1920, 1080, frames), (3840, 2160, (frames + 1) // 2)):
        name = f"{width}x{height}"
        fill(scratch / name, width, height, count, pictures)
        yield name, scratch / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=root() / "desk")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--only", choices=("virtual", "believed"))
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    print(machine())
    if chosen.only != "believed":
        virtual(chosen.folder, chosen.save)
    if chosen.only == "virtual":
        return
    head = "".join(f"{f'{cores} cores':>12}{'ratio':>7}" for cores in _BELIEVED)
    print(f"{'CPU seconds, believed':24}{head}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in folders(chosen.folder, chosen.frames, Path(scratch)):
            cpu = [believed(folder, cores)[0] for cores in _BELIEVED]
            shown = "".join(f"{each:12.2f}{each / cpu[0]:7.2f}" for each in cpu)
            count = len(list(folder.glob("*.png")))
            print(f"{name + f' ({count})':24}{shown}", flush=True)


if __name__ == "__main__":
    main()
