"""The files of a folder, and which of them look like photos."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fsmount.album import photos


@dataclass(frozen=True, slots=True)
class Item:
    """A file of a folder."""

    path: Path
    name: bytes
    bytes: int
    mtime_ns: int
    mode: int
    photo: bool


def scan(folder: Path, problems: list[tuple[str, str]]) -> list[Item]:
    """The files right in a folder, in order of name; what is neither file nor folder goes to
    `problems` (path, why)."""
    found = []
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path = folder / name
        try:
            item = _item(path)
        except OSError as error:
            problems.append((str(path), error.strerror or str(error)))
            continue
        if isinstance(item, Item):
            found.append(item)
        elif item:
            problems.append((str(path), item))
    return found


def _item(path: Path) -> Item | str:
    info = path.lstat()
    if stat.S_ISDIR(info.st_mode):
        return ""
    if not stat.S_ISREG(info.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no regular file"
        return f"left out: it is {kind}"
    name = os.fsencode(path.name)
    with path.open("rb") as file:
        photo = photos.is_photo(name, file.read(photos.SNIFF_BYTES))
    return Item(path, name, info.st_size, info.st_mtime_ns, info.st_mode, photo)


def albums_of(folder: Path, *, recursive: bool) -> list[tuple[Path, Path]]:
    """(folder, its album's path below the output): the folder itself, and those in it."""
    found = [(folder, Path(folder.resolve().name))]
    if recursive:
        for here, names, _ in os.walk(folder):
            names.sort()
            inner = [Path(here, name) for name in names if not Path(here, name).is_symlink()]
            found += [(path, found[0][1] / path.relative_to(folder)) for path in inner]
    return found


def one(path: Path, problems: list[tuple[str, str]]) -> list[Item]:
    """A single file, or none and its reason. OSError if there is none."""
    item = _item(path)
    if isinstance(item, Item):
        return [item]
    problems.append((str(path), item))
    return []
