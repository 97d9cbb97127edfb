"""fsmount album: create, append, verify, extract, info"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import trio

from fsmount.album import building, folders, reading
from fsmount.album.album import Album
from fsmount.album.building import Choices, Summary
from fsmount.album.files import Place, place_of
from fsmount.album.folders import Item
from fsmount.cli.common import start_log
from fsmount.cli.output import (
    SOME_SKIPPED,
    emit,
    json_option,
    meter,
    printable,
    problems,
    size,
    warn,
)
from fsmount.errors import AlbumExists, Damaged, FsmountError, UsageError
from fsmount.work.workers import Workers

_SMALLEST_BOX, _LARGEST_BOX = 64, 8192
_TIME_LIMIT_S = 900.0

paths_argument = click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
album_argument = click.argument("album", type=click.Path(path_type=Path))


_ALBUM_HELP = """\
Keep folders of photos as videos, ten to twenty times smaller: a lossy worst-case copy.

An album is NAME.mp4, a photo a second, NAME.xml, what exiftool says of each and all that is
needed to make files of them again, and NAME.files, what is no photo. `fsmount mount` shows it
as the folder it was. It is no substitute for the photos: most of their pixels are gone.

\b
Example:
  fsmount album create ~/photos/2014-07-Italy -o /media/stick
"""


@click.group(help=_ALBUM_HELP)
def album() -> None:
    """``fsmount album``."""


def _with_workers(work: Callable[[Workers], Awaitable[int]]) -> int:
    async def run() -> int:
        count = len(os.sched_getaffinity(0))
        async with Workers(count, time_limit=_TIME_LIMIT_S, memory_limit=None) as workers:
            return await work(workers)

    start_log()
    return trio.run(run)


class Box(click.ParamType):  # type: ignore[type-arg]
    """The side of a square, as N or NxN."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Pixels."""
        first, _, second = str(value).lower().partition("x")
        if second in ("", first) and first.isdecimal():
            side = int(first)
            if _SMALLEST_BOX <= side <= _LARGEST_BOX and side % 2 == 0:
                return side
        limits = f"{_SMALLEST_BOX} to {_LARGEST_BOX}"
        return self.fail(f"{value!r} is no even number of pixels, {limits}", param, ctx)


_CREATE_HELP = """\
Make an album of each FOLDER: FOLDER.mp4, FOLDER.xml and FOLDER.files.

Sources are only read. What does not decode cleanly, and what is no photo, is kept as it is in
FOLDER.files. A create that is stopped leaves the album that was there before, or none.

\b
Examples:
  fsmount album create ~/photos/2014-07-Italy -o /media/stick
  fsmount album create -r --box 1024 ~/photos -o /media/stick
  fsmount album create --codec prores --qscale 16 Italy
"""


@album.command(help=_CREATE_HELP)
@click.argument(
    "folders_given", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder for the albums. Default: the current one.",
)
@click.option(
    "--box", type=Box(), default=2048, help="Photos are shrunk to fit N x N. Default 2048."
)
@click.option(
    "--codec",
    type=click.Choice(["av1", "h264", "hevc", "prores"]),
    default="av1",
    help="Default av1, the smallest; h264 plays anywhere.",
)
@click.option("--crf", type=click.IntRange(1, 51), help="Coarseness, default 30; less is better.")
@click.option(
    "--qscale", type=click.IntRange(1, 64), help="The same for prores, default 16; less is better."
)
@click.option("--bursts", is_flag=True, help="Code photos that look alike together.")
@click.option(
    "--jpeg-quality",
    type=click.IntRange(1, 95),
    default=90,
    help="Of the files that a mount shows, default 90. Takes no space in the album.",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 1),
    default=building.FLOOR,
    help=f"SSIM below which a photo is encoded again, better. Default {building.FLOOR}.",
)
@click.option("-r", "--recursive", is_flag=True, help="An album for each folder inside, too.")
@click.option("--skip-others", is_flag=True, help="Leave out what is no photo.")
@click.option("--force", is_flag=True, help="Replace albums that are there already.")
@json_option
def create(
    folders_given: tuple[Path, ...],
    output: Path,
    box: int,
    codec: str,
    crf: int | None,
    qscale: int | None,
    bursts: bool,
    jpeg_quality: int,
    floor: float,
    recursive: bool,
    skip_others: bool,
    force: bool,
    as_json: bool,
) -> int:
    """``fsmount album create``."""
    if (qscale if codec != "prores" else crf) is not None:
        raise UsageError("--qscale goes with --codec prores, --crf with the other codecs")
    choices = Choices(
        codec, qscale if crf is None else crf, box, jpeg_quality, floor, bursts, skip_others
    )
    found: list[tuple[str, str]] = []
    wanted = []
    for folder in folders_given:
        _check_apart(folder, output, recursive)
        for source, name in folders.albums_of(folder, recursive=recursive):
            place = Place((output / name).parent, name.name)
            items = folders.scan(source, found)
            if items or not recursive:
                wanted.append((place, items))
        if not recursive:
            found += [(str(path), "left out: a folder (-r)") for path in _folders_in(folder)]
    seen = set()
    for place, _ in wanted:
        if place in seen:
            raise UsageError(f"two folders would become {place.xml}; choose with -o, one by one")
        seen.add(place)
        if place.xml.exists() and not force:
            raise AlbumExists(place.xml)

    async def work(workers: Workers) -> int:
        count, total = _measure([item for _, items in wanted for item in items])
        results = []
        with meter("encoding", count, total) as progress:
            for place, items in wanted:
                made = await building.create(place, items, choices, workers, progress)
                results.append((place, made))
        return _report(results, found, as_json)

    return _with_workers(work)


def _check_apart(folder: Path, output: Path, recursive: bool) -> None:
    inside, target = folder.resolve(strict=True), output.resolve()
    if not inside.is_dir():
        raise UsageError(f"{folder} is no folder; name the folder of the photos")
    if target == inside or (recursive and inside in target.parents):
        raise UsageError(f"the albums would lie among the photos of {folder}; choose with -o")


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _measure(items: list[Item]) -> tuple[int, int]:
    return len(items), sum(item.bytes for item in items)


_APPEND_HELP = """\
Add files, or the files of folders, to an album.

What is in it stays as it is, packet by packet. Files that it has already are skipped.

\b
Example:
  fsmount album append /media/stick/2014-07-Italy.xml ~/photos/late/*.jpg
"""


@album.command(help=_APPEND_HELP)
@album_argument
@paths_argument
@click.option("--skip-others", is_flag=True, help="Leave out what is no photo.")
@json_option
def append(album: Path, paths: tuple[Path, ...], skip_others: bool, as_json: bool) -> int:
    """``fsmount album append``."""
    place = place_of(album)
    found: list[tuple[str, str]] = []
    items: list[Item] = []
    for path in paths:
        if path.is_dir():
            items += folders.scan(path, found)
            found += [(str(inner), "left out: a folder") for inner in _folders_in(path)]
        else:
            items += folders.one(path, found)
    doubles = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if doubles:
        names = ", ".join(sorted(map(os.fsdecode, doubles)))
        raise UsageError(f"several files are called {names}; an album has one of each name")

    async def work(workers: Workers) -> int:
        with meter("encoding", *_measure(items)) as progress:
            summary = await building.append(place, items, skip_others, workers, progress)
        return _report([(place, summary)], found, as_json)

    return _with_workers(work)


def _report(
    results: list[tuple[Place, Summary]], found: list[tuple[str, str]], as_json: bool
) -> int:
    """Say what became of the folders; the exit code."""
    skipped = [other for _, made in results for other in made.others if not other.kept]
    lists = {
        "unfit": [pair for _, made in results for pair in made.unfit],
        "coarse": [pair for _, made in results for pair in made.coarse],
        "trimmed": [pair for _, made in results for pair in made.trimmed],
        "problems": found + [pair for _, made in results for pair in made.problems],
        "skipped": [(os.fsdecode(other.name), other.reason) for other in skipped],
    }
    albums = [{"album": str(place.xml), **_figures(place, made)} for place, made in results]
    emit({"albums": albums, **lists}, "\n".join(_sentence(one) for one in albums), as_json)
    if not as_json:
        for key, words in (
            ("unfit", "photos do not decode and are kept as they are:"),
            ("coarse", "photos are below the floor of quality:"),
            (
                "trimmed",
                "photos carry more than is kept (other pictures, a video, long histories):",
            ),
            ("skipped", "files are in no album (--skip-others):"),
            ("problems", "left out:"),
        ):
            if lists[key]:
                warn(f"{len(lists[key])} {words}")
                problems(lists[key])
    return SOME_SKIPPED if any(lists.values()) else 0


def _figures(place: Place, made: Summary) -> dict[str, Any]:
    """Of what this command added; sizes and the ratio of the whole album."""
    opened = Album(place)
    try:
        figures = _info(opened)
    finally:
        opened.close()
    return figures | {"added": len(made.photos), "known": made.known}


def _info(album: Album) -> dict[str, Any]:
    header, photos = album.contents.header, album.contents.photos
    stored = header.video_bytes + album.place.xml.stat().st_size
    source = sum(entry.bytes for entry in photos)
    worst = min(photos, key=lambda entry: entry.ssim, default=None)
    others = album.contents.others
    return {
        "photos": len(photos),
        "source_bytes": source,
        "video_bytes": header.video_bytes,
        "xml_bytes": stored - header.video_bytes,
        "stored_bytes": stored,
        "ratio": round(source / stored, 2),
        "mean_ssim": round(sum(one.ssim for one in photos) / max(1, len(photos)), 4),
        "mean_psnr": round(sum(one.psnr for one in photos) / max(1, len(photos)), 2),
        "worst_ssim": None if worst is None else worst.ssim,
        "worst": None if worst is None else os.fsdecode(worst.shown),
        "groups": sum(entry.key == entry.frame for entry in photos),
        "others": sum(other.kept for other in others),
        "other_bytes": sum(other.bytes for other in others if other.kept),
        "left_out": sum(not other.kept for other in others),
        "codec": header.codec,
        "grade": header.grade,
        "box": header.box,
        "jpeg_quality": header.jpeg_quality,
        "floor": header.floor,
        "bursts": header.bursts,
        "made_by": header.made_by,
    }


def _sentence(one: dict[str, Any]) -> str:
    text = f"{printable(one['album'])}: {one['photos']} photos, {size(one['source_bytes'])} in"
    text += f" {size(one['stored_bytes'])}, {one['ratio']} times smaller"
    if one["worst"] is not None:
        text += f"; SSIM {one['mean_ssim']}, worst {one['worst_ssim']} ({printable(one['worst'])})"
    if one["others"]:
        text += f"; {one['others']} other files kept as they are ({size(one['other_bytes'])})"
    if one["known"]:
        text += f"; {one['known']} were there already"
    return text + ". This is a lossy copy: keep the photos."


_VERIFY_HELP = """\
Check that an album is whole: decode every photo, compare every hash.

\b
Example:
  fsmount album verify /media/stick/2014-07-Italy.xml
"""


@album.command(help=_VERIFY_HELP)
@album_argument
@json_option
def verify(album: Path, as_json: bool) -> int:
    """``fsmount album verify``."""
    opened = Album(place_of(album))

    async def work(workers: Workers) -> int:
        photos, others = opened.contents.photos, opened.others()
        total = sum(one.bytes for one in photos) + sum(one.bytes for one in others)
        with meter("verifying", len(photos) + len(others), total) as progress:
            verifier = reading.Verifier(opened, workers, progress)
            await verifier.verify()
        found = verifier.found
        count = len(photos) + len(others)
        emit(
            {
                "whole": found.files,
                "files": count,
                "problems": found.problems,
                "other_bytes": found.other_bytes,
            },
            f"{found.files}/{count} whole",
            as_json,
        )
        if not as_json:
            _tell(found, "damaged")
        return Damaged.exit_code if found.problems else 0

    try:
        return _with_workers(work)
    finally:
        opened.close()


def _tell(found: reading.Found, trouble: str) -> None:
    """What is not as it was when the album was made."""
    if found.other_bytes:
        warn(
            f"{len(found.other_bytes)} photos come out in other bytes than when the album was made,"
            " since the libraries of this machine differ; sizes are the same, nothing is damaged"
        )
    if found.problems:
        warn(f"{len(found.problems)} {trouble}:")
        problems(found.problems)


_EXTRACT_HELP = """\
Write the photos and other files of an album into the folder DEST.

\b
Example:
  fsmount album extract /media/stick/2014-07-Italy.xml ~/restored
"""


@album.command(help=_EXTRACT_HELP)
@album_argument
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@json_option
def extract(album: Path, dest: Path, force: bool, as_json: bool) -> int:
    """``fsmount album extract``."""
    opened = Album(place_of(album))

    async def work(workers: Workers) -> int:
        photos, others = opened.contents.photos, opened.others()
        total = sum(one.bytes for one in photos) + sum(one.bytes for one in others)
        with meter("extracting", len(photos) + len(others), total) as progress:
            extractor = reading.Extractor(opened, dest, workers, progress)
            await extractor.extract(force=force)
        found = extractor.found
        emit(
            {
                "files": found.files,
                "bytes": found.bytes,
                "skipped": found.skipped,
                "problems": found.problems,
                "other_bytes": found.other_bytes,
            },
            f"{found.files} files written ({size(found.bytes)}),"
            f" {found.skipped} were there already",
            as_json,
        )
        if not as_json:
            _tell(found, "could not be written")
        return FsmountError.exit_code if found.problems else 0

    try:
        return _with_workers(work)
    finally:
        opened.close()


_INFO_HELP = """\
Say what is in an album, how small it is, and how good.

\b
Examples:
  fsmount album info /media/stick/2014-07-Italy.xml
  fsmount album info --photos --json /media/stick/2014-07-Italy.xml
"""


@album.command(help=_INFO_HELP)
@album_argument
@click.option("--photos", "each", is_flag=True, help="Also list every photo and other file.")
@json_option
def info(album: Path, each: bool, as_json: bool) -> None:
    """``fsmount album info``."""
    opened = Album(place_of(album))
    try:
        found = _info(opened)
        rows = [_row(entry) for entry in opened.contents.photos] if each else []
        others = [dataclasses.asdict(other) for other in opened.contents.others] if each else []
    finally:
        opened.close()
    for other in others:
        other["name"] = os.fsdecode(other["name"])
    lines = [
        f"{key.replace('_', ' ')}: {printable(value) if key == 'worst' and value else value}"
        for key, value in found.items()
    ]
    lines += [
        f"{row['frame']} {printable(row['name'])} {row['packet_bytes']} bytes of {row['bytes']},"
        f" SSIM {row['ssim']}, PSNR {row['psnr']}"
        for row in rows
    ]
    lines += [
        f"- {printable(other['name'])} {other['bytes']} bytes, {other['reason']}"
        for other in others
    ]
    extra = {"list": rows, "other_files": others} if each else {}
    emit({"album": str(album), **found, **extra}, "\n".join(lines), as_json)


def _row(entry: Any) -> dict[str, Any]:
    row = dataclasses.asdict(entry)
    row["name"], row["shown"] = os.fsdecode(entry.name), os.fsdecode(entry.shown)
    return row
