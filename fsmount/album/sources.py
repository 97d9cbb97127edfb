"""The source files of an album: the files of a folder, and which of them look like photos."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fsmount.album import photos


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file of a source folder, as ``lstat`` describes it.

    ``is_photo`` says that the name or the first bytes look like a photo; nothing is decoded.
    """

    path: Path
    name: bytes
    bytes: int
    mtime_ns: int
    mode: int
    is_photo: bool


def scan_folder(folder: Path, problems: list[tuple[str, str]]) -> list[SourceFile]:
    """List the regular files directly in a folder, in order of name.

    Folders are ignored. A link, a special file or an unreadable file is appended to ``problems``
    as (path, reason).

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    found = []
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path = folder / name
        try:
            source = _source_file(path)
        except OSError as error:
            problems.append((str(path), error.strerror or str(error)))
            continue
        if isinstance(source, SourceFile):
            found.append(source)
        elif source:
            problems.append((str(path), source))
    return found


def _source_file(path: Path) -> SourceFile | str:
    """Return the source file, or why it is left out ("" for a folder)."""
    info = path.lstat()
    if stat.S_ISDIR(info.st_mode):
        return ""
    if not stat.S_ISREG(info.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "not a regular file"
        return f"left out: it is {kind}"
    name = os.fsencode(path.name)
    with path.open("rb") as file:
        is_photo = photos.is_photo(name, file.read(photos.SNIFF_BYTES))
    return SourceFile(path, name, info.st_size, info.st_mtime_ns, info.st_mode, is_photo)


def albums_for(folder: Path, *, recursive: bool) -> list[tuple[Path, Path]]:
    """List the folders that become albums, each with its album's path below the output folder.

    The first one is ``folder`` itself. With ``recursive`` the folders inside it follow; symbolic
    links to folders are not followed.
    """
    found = [(folder, Path(folder.resolve().name))]
    if recursive:
        for parent, names, _ in os.walk(folder):
            names.sort()
            inner = [Path(parent, name) for name in names if not Path(parent, name).is_symlink()]
            found += [(path, found[0][1] / path.relative_to(folder)) for path in inner]
    return found


def scan_file(path: Path, problems: list[tuple[str, str]]) -> list[SourceFile]:
    """Return a single file as a list, or an empty list and the reason in ``problems``.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    """
    source = _source_file(path)
    if isinstance(source, SourceFile):
        return [source]
    problems.append((str(path), source))
    return []
