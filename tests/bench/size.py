"""Size and speed of fsmount compared with the blog's method, in one run on the same cores.

    python -m tests.bench.size [FOLDER_OF_PNGS]

Prints the most important lines of ``python -m tests.bench``, without the opens, and their ratios.
For the repacked store, "in" counts both the import and the repack.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.blog import Blog
from tests.bench.measure import machine
from tests.bench.methods import run
from tests.bench.ours import Fsmount, Repacked
from tests.support.corpus import root


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "desk"
    files = sorted(folder.glob("*.png"))
    total = sum(path.stat().st_size for path in files)
    with tempfile.TemporaryDirectory() as scratch:
        methods = Blog(), Fsmount(), Repacked()
        rows = [run(method, files, Path(scratch) / "one", 0) for method in methods]
    print(f"{len(files)} files, {total:,} bytes, {machine()['cores']} cores")
    print(f"{'':20}{'bytes':>14}{'ratio':>8}{'in, files/s':>13}{'out, files/s':>14}")
    for row in rows:
        rates = f"{row.in_rate:13.1f}{row.out_rate:14.1f}"
        print(f"{row.name:20}{row.bytes:14,}{1 / row.share:8.1f}{rates}")
    blog = rows[0]
    for row in rows[1:]:
        rates = f"{row.in_rate / blog.in_rate:13.2f}{row.out_rate / blog.out_rate:14.2f}"
        print(f"{'ratio':20}{row.bytes / blog.bytes:14.3f}{'':8}{rates}")


if __name__ == "__main__":
    main()
