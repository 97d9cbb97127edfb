"""Stores for the tests of contrib/unpack.py, and runs of the script without our package."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from fsmount.codec.images import jpeg
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT
from fsmount.store.store import open_store
from tests.support import animations, corpus, pngs
from tests.support.paths import CHECKOUT
from tests.support.photos import camera

SCRIPT = CHECKOUT / "contrib" / "unpack.py"
# None in sys.modules makes an import fail, even if the package is installed.
DRIVER = """
import runpy, sys
forbidden = sys.argv.pop(1).split(",")
sys.modules.update(dict.fromkeys(forbidden))
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
finally:
    assert all(sys.modules[name] is None for name in forbidden)
"""
_OURS = ("fsmount", "apsw", "msgpack")
MTIME = 1_700_000_000_123_456_789
Files = dict[bytes, bytes]


@dataclass(frozen=True)
class Result:
    """The exit code and output of a run, and the folder with its files."""

    code: int
    lines: list[str]
    dest: Path

    def files(self) -> Files:
        """Path -> bytes of every regular file."""
        return {
            os.fsencode(path.relative_to(self.dest)): path.read_bytes()
            for path in self.dest.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def damaged(self) -> set[bytes]:
        """Paths of the files that the run reported as damaged."""
        lines = [line.split(": ")[0] for line in self.lines if line.startswith("DAMAGED ")]
        return {os.fsencode(line.removeprefix("DAMAGED ")) for line in lines}


def unpack(source: Path, dest: Path, *forbidden: str, script: Path = SCRIPT) -> Result:
    names = ",".join([*_OURS, *forbidden])
    done = subprocess.run(
        [sys.executable, "-I", "-c", DRIVER, names, script, source, dest],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert not done.stderr, done.stderr.decode()
    return Result(done.returncode, done.stdout.decode().splitlines(), dest)


def screens() -> Files:
    """RGB frames of a screen on which little changes from frame to frame."""
    source = random.Random(3)
    scene = [bytearray(source.choice((b"\x20\x30\x40", b"\xee\xee\xee")) * 180) for _ in range(130)]
    found = {}
    for number in range(8):
        for row in scene[8 * number : 8 * number + 5]:
            row[60:120] = source.randbytes(60)
        rows = tuple(map(bytes, scene))
        types = bytes(random.Random(number).choices(range(5), k=len(rows)))
        plan = pngs.Plan(180, 130, rows, types, 2, 8, cuts=(8192,) * 9, strategy=1)
        found[b"screens/%02d.png" % number] = pngs.build(plan).replace(
            pngs.chunk(b"IDAT", b""), b""
        )
    return found


def kinds() -> Files:
    """A picture of every colour type and depth, with everything that a recipe can hold."""
    found = {}
    for colour, depth in pngs.KINDS:
        for style in ("bars", "opaque"):
            rows = pngs.make_rows(random.Random(depth), 45, 35, colour, depth, style)
            head = pngs.chunk(b"PLTE", bytes(3 << depth)) if colour == 3 else b""
            tail = pngs.chunk(b"tEXt", b"a\0b") + pngs.IEND + b"behind"
            plan = pngs.Plan(45, 35, rows, bytes(range(5)) * 7, colour, depth, head=head, tail=tail)
            name = b"kinds/%d-%d-%s.png" % (colour, depth, style.encode())
            found[name] = pngs.build(plan if style == "bars" else _cut(plan))
        for interlace in (0, 1):
            source = random.Random(depth)
            other = pngs.with_types(replace(plan, interlace=interlace), bytes(range(5)))
            name = b"kinds/%d-%d-%d.png" % (colour, depth, interlace)
            found[name] = animations.build(animations.animation(source, _cut(other), 4))
            if interlace:
                found[b"kinds/%d-%d-interlaced.png" % (colour, depth)] = pngs.build(other)
    flushed = pngs.DAMAGES["flushed"](plan, random.Random(1))
    found[b"kinds/flushed.png"] = flushed
    found[b"kinds/flushed animation.png"] = animations.build(
        animations.Animation(plan, (animations.Part(plan), animations.Part(plan))), flush=True
    )
    # Too long for an extra field of a ZIP.
    found[b"kinds/long.png"] = found[name] + random.Random(2).randbytes(70_000)
    return found


def _cut(plan: pngs.Plan) -> pngs.Plan:
    return replace(plan, cuts=(3, 0, 40), idat_tail=b"more", level=9, window_bits=12)


def screenshots() -> Files:
    """Screenshots of real programs, if there are any here."""
    found: Files = {}
    for folder, one_in, most in (("desk", 10, 12), ("encoders", 3, 4)):
        try:
            paths = corpus.files(folder, one_in)[:most]
        except pytest.skip.Exception:
            continue
        paths = [path for path in paths if path.name not in ("chrome.png", "isal_l2.png")]  # slow
        found |= {f"{folder}/{path.name}".encode(): path.read_bytes() for path in paths}
    return found


def others() -> Files:
    """Files that are kept verbatim, a second file with the same bytes, and a screen once more."""
    rows = pngs.make_rows(random.Random(1), 60, 40, 2, 8, "noise")
    plan = pngs.Plan(60, 40, rows, bytes(40), 2, 8)
    return {
        b"notes.txt": b"seen: 12\n" * 100,
        b"empty": b"",
        b"n\xff\xc3\xa4 me.bin": bytes(range(256)),
        b"cut off.png": pngs.build(plan)[:-40],
        b"screens/again.png": screens()[b"screens/03.png"],
        b"other.txt": b"seen: 12\n" * 100,
    }


def jpegs() -> Files:
    """Files that are kept as JPEG XL, if this machine can encode it."""
    if not jpeg.available():
        return {}
    return {b"photos/%d.jpg" % number: camera(number) + b"behind" * number for number in range(3)}


class _Builder:
    """Fills a store through its API, as the mount does."""

    def __init__(self, store: StoreFiles) -> None:
        self._store = store
        self._folders = {b"": ROOT}

    def folder(self, path: bytes) -> int:
        if path not in self._folders:
            above, name = os.path.split(path)
            made = self._store.index.create(
                self.folder(above), name, mode=stat.S_IFDIR | 0o750, uid=0, gid=0, now_ns=MTIME
            )
            self._folders[path] = made.ino
        return self._folders[path]

    def file(self, path: bytes, data: bytes, number: int = 0) -> int:
        """Write and close a staged file, without queueing it. Returns its inode number."""
        staging, disk = self._store.staging, self._store.disk
        token = staging.create()
        fd = staging.open(token)
        disk.pwrite(fd, data, 0)
        disk.close(fd)
        above, name = os.path.split(path)
        now = MTIME + number
        mode = stat.S_IFREG | 0o640
        folder = self.folder(above)
        made = self._store.index.create(
            folder, name, mode=mode, uid=0, gid=0, now_ns=now, staged=token, size=len(data)
        )
        return made.ino


async def _fill(root: Path, files: Files) -> None:
    config.make(root, Disk())
    opened = open_store(root)
    builder = _Builder(opened)
    names = opened.index
    async with opened.running() as store:
        for number, (path, data) in enumerate(files.items()):
            store.queue(builder.file(path, data, number))
        await store.drain()
    now = MTIME
    first = names.lookup(ROOT, b"notes.txt")
    assert first is not None
    names.link(builder.folder(b"deep/empty folder"), b"hard link", first.ino, now)
    link = stat.S_IFLNK | 0o777
    names.create(ROOT, b"link", mode=link, uid=0, gid=0, now_ns=now, target=b"../../etc/passwd")
    names.update(builder.folder(b"deep"), mtime_ns=now + 5)
    builder.file(b"staged.png", b"not encoded yet")
    opened.close()


def make(root: Path, files: Files) -> tuple[Path, Files]:
    trio.run(_fill, root, files)
    return root, files
