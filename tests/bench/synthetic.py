"""Makes a store of very many files without their pictures: index rows that share one entry.

    python -m tests.bench.synthetic STORE [--files 1000000] [--folder 25000] [--shared]

Every file has an object row of its own, as if each were a new picture. A row has as many references
as the frames of a real store. All rows point to the entry of one real picture. With `--shared`
all files share the object of that picture, as identical files do.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import trio

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index, Object
from fsmount.store.layout import Layout
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from tests.support.frames import png, screens

FILES, FOLDER = 1_000_000, 25_000
# Measured on 120 real screenshots: mean number of references of an object, and of references with
# pixels among them. They spread over the objects that the planner remembers.
NEEDS, _LAYER, _REMEMBERED = 22, 2, 512
_FIRST = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def names(count: int) -> Iterator[bytes]:
    """Names as the usual loop of a screenshot tool makes them, one a minute."""
    for minute in range(count):
        yield (_FIRST + datetime.timedelta(minutes=minute)).isoformat().encode() + b".png"


def fill(path: Path, files: int, folder: int = FOLDER, *, shared: bool = False) -> None:
    """Make a new store at `path` with `files` files, in folders of `folder` files each."""
    with tempfile.TemporaryDirectory() as scratch:
        one = Path(scratch) / "one.png"
        one.write_bytes(png(screens(1)[0]))
        trio.run(_with_one_picture, path, one)
    index = Index(Layout(path).index, Disk())
    picture = next(index.all_objects())
    source = names(files)
    for start in range(0, files, folder):
        with index.transaction():
            _fill_folder(index, picture, source, start, min(folder, files - start), shared)
    index.close()
    trio.run(_renew_copies, path)


async def _renew_copies(path: Path) -> None:
    with open_store(path) as opened:
        async with opened.started() as store:
            store.renew_copies()


async def _with_one_picture(path: Path, picture: Path) -> None:
    config.make(path, Disk())
    opened = open_store(path)
    async with opened.running() as store:
        await Importer(store, lambda files, count: None).add(picture, b"one.png")
    opened.close()


def _fill_folder(
    index: Index, picture: Object, source: Iterator[bytes], start: int, count: int, shared: bool
) -> None:
    now_ns = time.time_ns()
    parent = index.create(
        ROOT, f"{start:08}".encode(), mode=stat.S_IFDIR | 0o755, uid=0, gid=0, now_ns=now_ns
    )
    number = index.next_object_id()
    for name in (next(source) for _ in range(count)):
        made = index.create(
            parent.ino,
            name,
            mode=stat.S_IFREG | 0o644,
            uid=0,
            gid=0,
            now_ns=now_ns,
            staged=number,
            size=picture.size,
        )
        body = picture
        if not shared:
            body = replace(
                picture,
                id=number,
                kind="delta",
                sha256=hashlib.sha256(name).digest(),
                depth=1,
                needs=_spread(number, NEEDS),
                layer=_spread(number, _LAYER),
            )
            index.add_object(body)
        index.encode(made.ino, number, body.id, picture.size)
        number += 1


def _spread(number: int, count: int) -> tuple[int, ...]:
    """`count` ids below `number`, at equal distances; fewer for small numbers."""
    step = _REMEMBERED // NEEDS
    return tuple(range(max(1, number - step * count), number, step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--folder", type=int, default=FOLDER)
    parser.add_argument("--shared", action="store_true")
    chosen = parser.parse_args()
    fill(chosen.store, chosen.files, chosen.folder, shared=chosen.shared)


if __name__ == "__main__":
    main()
