"""Compares fsmount with other methods on a folder of PNGs, in one run on the same cores.

    python -m tests.bench [FOLDER] [--json] [--slow] [--opens 60] [--only WORD ...] [--chart SVG]

Each method stores the pictures, makes all of them again, and opens some at random, cold. The
benchmark compares each opened picture with the original. `gives` is the output of a method: the
files' bytes, only pixels, or a picture that looks alike. `--slow` adds AV1 and xz, which take some
seconds a picture. On a busy machine the CPU seconds are the better figures. `--chart` writes a
chart of bytes a picture against ms to open one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.bench.archives import Squashfs, TarZst
from tests.bench.blog import Blog
from tests.bench.chart import scatter
from tests.bench.measure import machine
from tests.bench.methods import Method, Row, Wrong, run
from tests.bench.ours import Fsmount, Repacked
from tests.bench.single import Jpeg, Recompressed
from tests.bench.stills import JpegXl
from tests.bench.video import AV1, FFV1, X264, Video, common_shape, start_seconds
from tests.support.corpus import root

_HEAD = (
    f"{'':20}{'gives':>7}{'bytes':>13}{'% of PNG':>9} |{'in/s':>7}{'CPU s':>7}{'MiB':>6}"
    f"{'written':>8} |{'out/s':>7}{'CPU s':>7}{'MiB':>6} |{'open p50':>9}{'p90':>8}{'p99':>8} ms"
)


def methods(files: Sequence[Path], slow: bool) -> list[Method]:
    """All methods of the comparison."""
    shape = common_shape(files)
    found: list[Method] = [Fsmount(), Repacked(), Blog(), JpegXl(1), JpegXl(7)]
    found += [Video("x264rgb lossless", X264, shape), Video("FFV1", FFV1, shape)]
    if slow:
        found += [Video("AV1 lossless", AV1, shape), Recompressed()]
    return [*found, Squashfs(), TarZst(), Jpeg(85)]


def line(row: Row) -> str:
    """One line of the table."""
    opened = "".join(
        f"{value:{width}.1f}" for value, width in zip(row.open_ms, (9, 8, 8), strict=False)
    )
    return (
        f"{row.name:20}{row.gives:>7}{row.bytes:13,}{100 * row.share:9.2f} |{row.in_rate:7.1f}"
        f"{row.in_cpu_s:7.1f}{row.in_peak_bytes >> 20:6}{row.written:8.2f} |{row.out_rate:7.1f}"
        f"{row.out_cpu_s:7.1f}{row.out_peak_bytes >> 20:6} |{opened}"
    )


def compare(
    chosen: Sequence[Method], files: Sequence[Path], opens: int, show: Callable[[str], None]
) -> tuple[list[Row], dict[str, str], dict[str, str]]:
    """Run the methods; returns (rows, reasons of unavailable methods, errors of failed methods)."""
    rows: list[Row] = []
    absent: dict[str, str] = {}
    failed: dict[str, str] = {}
    for method in chosen:
        why = method.missing()
        if why is not None:
            absent[method.name] = why
            show(f"{method.name:20} not here: {why}")
            continue
        try:
            with tempfile.TemporaryDirectory() as scratch:
                rows.append(run(method, files, Path(scratch) / "one", opens))
            show(line(rows[-1]))
        except (Wrong, subprocess.CalledProcessError) as error:
            failed[method.name] = str(error)
            show(f"{method.name:20} FAILED: {error}")
    return rows, absent, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=root() / "desk")
    parser.add_argument("--json", action="store_true", help="a JSON object; the table to stderr")
    parser.add_argument("--slow", action="store_true", help="AV1 and xz, too")
    parser.add_argument("--opens", type=int, default=60, help="pictures opened at random")
    parser.add_argument("--only", nargs="*", default=[""], help="methods with this in their name")
    parser.add_argument("--chart", type=Path, help="the SVG file of a chart")
    chosen = parser.parse_args()
    files = sorted(chosen.folder.glob("*.png"))
    if not files:
        sys.exit(f"there are no PNGs in {chosen.folder}")
    about = {
        **machine(),
        "pictures": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }
    show = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    show(", ".join(f"{name} {value}" for name, value in about.items()))
    show(_HEAD)
    wanted = [
        method
        for method in methods(files, chosen.slow)
        if any(word in method.name for word in chosen.only)
    ]
    rows, absent, failed = compare(wanted, files, chosen.opens, show)
    about["load_at_the_end"] = machine()["load"]
    if any(isinstance(method, Video) for method in wanted) and shutil.which("ffmpeg"):
        about["ffmpeg_start_ms"] = round(1000 * start_seconds(), 1)
        show(f"the start of ffmpeg, {about['ffmpeg_start_ms']} ms, is in its opens")
    if chosen.chart and any(row.open_ms for row in rows):
        title = f"{len(files)} screenshots, {about['bytes']:,} bytes as PNG"
        chosen.chart.write_text(scatter(title, rows, len(files)))
    if chosen.json:
        plain = [row.as_json() for row in rows]
        print(json.dumps({**about, "rows": plain, "not_here": absent, "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
