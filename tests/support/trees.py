"""Folders with every kind of entry, the attributes of each entry, and imports and exports."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.ingest import committer
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.exporting import Exporter
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import target_of
from tests.support.encoding import Inline, forget_caches
from tests.support.frames import png, screens
from tests.support.paths import DATA

REAL = DATA / "desk"
Facts = dict[bytes, dict[str, Any]]


def make_pictures(folder: Path, count: int = 3) -> list[Path]:
    """Write small screenshots of one desktop. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02d}.png" for number in range(count)]
    for path, frame in zip(paths, screens(count), strict=True):
        path.write_bytes(png(frame))
    return paths


def make_tree(root: Path) -> Path:
    """Fill a folder with every kind of entry. Entries that need root are made only by root."""
    pictures = make_pictures(root / "desk" / "2024 June")
    odd = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt"))
    odd.write_bytes(b"Latin-1")
    (root / "two\nlines").write_text("a name of two lines")
    (root / "zero").touch()
    (root / "grün.bin").write_bytes(bytes(range(256)) * 20)
    script = root / "run me"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o4750)
    (root / "empty").mkdir(mode=0o700)
    (root / "locked").mkdir()
    (root / "locked" / "inside").write_text("read only")
    (root / "locked" / "inside").chmod(0o400)
    (root / "link").symlink_to("desk/2024 June/00.png")
    (root / "dangling").symlink_to(os.fsdecode(b"nowhere\xff/at all"))
    (root / "to a folder").symlink_to("desk")
    (root / "again.png").hardlink_to(pictures[0])
    os.mkfifo(root / "pipe", 0o640)
    for path, name, value in (
        (odd, "user.colour", b"red\0\xff"),
        (root / "locked" / "inside", "user.empty", b""),
        (root / "empty", "user.of.a.folder", b"x" * 300),
    ):
        try:
            path.chmod(path.stat().st_mode | 0o200)
            os.setxattr(path, name, value)
        except OSError:
            continue
    (root / "locked" / "inside").chmod(0o400)
    if os.geteuid() == 0:
        os.chown(root / "zero", 1234, 4321)
        os.chown(root / "dangling", 99, 99, follow_symlinks=False)
        os.chown(root / "empty", 77, 88)
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "locked").chmod(0o555)
    paths = sorted(root.rglob("*"), key=lambda path: -len(path.parts))
    for number, path in enumerate(paths):
        when = 1_600_000_000_000_000_001 + number * 1_000_000_007
        os.utime(path, ns=(when + 5, when), follow_symlinks=False)
    os.utime(root / "zero", ns=(1, -1_000_000_001))
    return root


def facts(root: Path, *, ctimes: bool = False) -> Facts:
    """Path -> type, mode, owner, mtime, bytes, xattrs and links, for every entry below a folder."""
    found: Facts = {}
    links: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = folder + b"/" + name
            info = os.lstat(path)
            entry: dict[str, Any] = {
                "mode": oct(info.st_mode),
                "owner": (info.st_uid, info.st_gid),
                "mtime": info.st_mtime_ns,
                "rdev": info.st_rdev,
                "xattrs": {
                    key: os.getxattr(path, key, follow_symlinks=False)
                    for key in os.listxattr(path, follow_symlinks=False)
                },
            }
            if ctimes:
                entry["ctime"] = info.st_ctime_ns
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    entry["sha256"] = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                entry["target"] = os.readlink(path)
            short = os.path.relpath(path, os.fsencode(root))
            found[short] = entry
            if not stat.S_ISDIR(info.st_mode):
                links[info.st_dev, info.st_ino].append(short)
    for names in links.values():
        for name in names:
            found[name]["links"] = sorted(names)
    return found


def make_store(path: Path, monkeypatch: pytest.MonkeyPatch, *, inline: bool = True) -> Path:
    """Make a store with short waits for a batch. With `inline` this process does all its work."""
    forget_caches()
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.01)
    if inline:
        monkeypatch.setattr(store_module, "Workers", Inline)
    config.make(path, Disk())
    return path


def _quiet(files: int, count: int) -> None:
    return


async def import_into(root: Path, *sources: str | Path, delete: bool = False) -> Importer:
    """Do the work of `fsmount import`. A source that is a str may end in a slash."""
    opened = open_store(root)
    try:
        async with opened.running(count=2) as store:
            importer = Importer(store, _quiet, delete=delete)
            for source in sources:
                await importer.add(Path(source), target_of(str(source)))
            return importer
    finally:
        opened.close()


async def export_from(root: Path, dest: Path, *paths: bytes, force: bool = False) -> Exporter:
    """Do the work of `fsmount export`."""
    opened = open_read_store(root)
    try:
        async with opened.running(count=2) as store:
            exporter = Exporter(store, dest, _quiet, force=force)
            for path in paths or (b"",):
                await exporter.export(path)
            return exporter
    finally:
        opened.close()
