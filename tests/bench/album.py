"""Albums: size, quality and CPU time of making one, and response times of its mount.

python -m tests.bench.album FOLDER [OPTION OF album create]...
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsmount.mount.unmount import unmount


def fsmount(*arguments: object) -> str:
    """Run a command of fsmount; returns its output."""
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def cpu_s() -> float:
    """CPU seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(calls: list[Callable[[], object]]) -> str:
    """Time calls; returns a text with median and worst, in milliseconds."""
    found = []
    for call in calls:
        start = time.perf_counter()
        call()
        found.append((time.perf_counter() - start) * 1000)
    found.sort()
    return f"p50 {found[len(found) // 2]:.1f} ms, worst {found[-1]:.1f} ms"


def reads(xml: Path, place: Path, order: list[str], pause_s: float = 0.0) -> str:
    """Read photos of a fresh mount in the given order, with pauses; returns a text on the times."""
    fsmount("mount", xml, place)
    calls: list[Callable[[], object]] = []
    for name in order:

        def read(path: Path = place / name) -> None:
            path.read_bytes()

        calls.append(read)
    try:
        read_first = (place / order[0]).stat  # let the mount answer once before the measurement
        read_first()
        if not pause_s:
            return timed(calls)
        found = []
        for call in calls:
            start = time.perf_counter()
            call()
            found.append((time.perf_counter() - start) * 1000)
            time.sleep(pause_s)
        return f"first {found[0]:.1f} ms, then p50 {sorted(found[1:])[len(found) // 2 - 1]:.1f} ms"
    finally:
        unmount(place)


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as scratch:
        out, place = Path(scratch, "out"), Path(scratch, "mnt")
        place.mkdir()
        before = cpu_s()
        done = json.loads(fsmount("album", "create", folder, "-o", out, "--json", *options))
        (album,) = done["albums"]
        spent = cpu_s() - before
        for key in ("photos", "ratio", "video_bytes", "xml_bytes", "mean_ssim", "worst_ssim"):
            print(f"{key:12} {album[key]}")
        print(f"{'groups':12} {album['groups']}")
        print(f"{'CPU/photo':12} {spent / max(1, album['photos']):.2f} s")
        xml = Path(album["album"])
        listed = json.loads(fsmount("album", "info", "--photos", "--json", xml))["list"]
        names = [one["shown"] for one in listed]
        mixed = random.Random(1).sample(names, len(names))
        fsmount("mount", xml, place)
        stats: list[Callable[[], object]] = [(place / name).stat for name in names]
        try:
            print("stat        ", timed(stats))
            os.listdir(place)
        finally:
            unmount(place)
        print("random reads", reads(xml, place, mixed))
        print("in order    ", reads(xml, place, names))
        print("as a viewer ", reads(xml, place, names, 0.5), "(half a second a photo)")


if __name__ == "__main__":
    main()
