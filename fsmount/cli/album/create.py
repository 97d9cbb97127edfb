"""The command ``fsmount album create``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from fsmount.album import builder, sources
from fsmount.album.builder import BuildReport, CreateOptions
from fsmount.album.create import create as create_album
from fsmount.album.files import AlbumPaths
from fsmount.album.ordered import run_in_order
from fsmount.album.sources import SourceFile
from fsmount.cli.album.common import (
    count_and_bytes,
    inner_folders,
    report_built,
    skip_others_option,
    with_workers,
)
from fsmount.cli.common.options import json_option
from fsmount.cli.common.progress import meter
from fsmount.errors import AlbumExists, UsageError
from fsmount.work.workers import Workers

_SMALLEST_BOX, _LARGEST_BOX = 64, 8192


class Box(click.ParamType):  # type: ignore[type-arg]
    """The side of a square in pixels, as N or NxN."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the pixels; fail unless they are even and within the limits."""
        first, _, second = str(value).lower().partition("x")
        if second in ("", first) and first.isdecimal():
            side = int(first)
            if _SMALLEST_BOX <= side <= _LARGEST_BOX and side % 2 == 0:
                return side
        limits = f"{_SMALLEST_BOX} to {_LARGEST_BOX}"
        return self.fail(f"{value!r} is not an even number of pixels, {limits}", param, ctx)


_HELP = """\
Make an album of each FOLDER. It is FOLDER.mp4, FOLDER.xml and FOLDER.files.

Sources are only read. Files that are no photos, and photos that do not decode cleanly, are stored
as they are in FOLDER.files. A create that is stopped leaves the old album, or none.

\b
Examples:
  fsmount album create ~/photos/2014-07-Italy -o /media/stick
  fsmount album create -r --box 1024 ~/photos -o /media/stick
  fsmount album create --codec prores --qscale 16 Italy
"""

_STOPPED = "Albums that are finished stay. Of the others nothing is left."


@click.command(help=_HELP)
@click.argument(
    "folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder for the albums. Default: the current one.",
)
@click.option(
    "--box", type=Box(), default=2048, help="Shrink photos to fit N x N pixels. Default 2048."
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
@click.option("--bursts", is_flag=True, help="Encode photos that look alike together.")
@click.option(
    "--jpeg-quality",
    type=click.IntRange(1, 95),
    default=90,
    help="Quality of the files that a mount shows, default 90. Takes no space in the album.",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 1),
    default=builder.DEFAULT_FLOOR,
    help="Encode a photo again, better, while its SSIM is lower than this."
    f" Default {builder.DEFAULT_FLOOR}.",
)
@click.option("-r", "--recursive", is_flag=True, help="Also make an album of each folder inside.")
@skip_others_option
@click.option("--force", is_flag=True, help="Replace existing albums.")
@json_option
def create(
    folders: tuple[Path, ...],
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
    """Run ``fsmount album create``."""
    if (qscale if codec != "prores" else crf) is not None:
        raise UsageError("--qscale is for --codec prores, --crf for the other codecs")
    grade = qscale if crf is None else crf
    options = CreateOptions(codec, grade, box, jpeg_quality, floor, bursts, skip_others)
    left_out: list[tuple[str, str]] = []
    wanted = []
    for folder in folders:
        _check_apart(folder, output, recursive)
        for source, name in sources.albums_for(folder, recursive=recursive):
            paths = AlbumPaths((output / name).parent, name.name)
            files = sources.scan_folder(source, left_out)
            if files or not recursive:
                wanted.append((paths, files))
        if not recursive:
            left_out += [(str(path), "left out: a folder (-r)") for path in inner_folders(folder)]
    _check_targets([paths for paths, _ in wanted], force)

    async def work(workers: Workers) -> int:
        count, total = count_and_bytes([file for _, files in wanted for file in files])
        results: list[tuple[AlbumPaths, BuildReport]] = []

        async def build(paths: AlbumPaths, files: list[SourceFile]) -> BuildReport | Exception:
            try:
                return await create_album(paths, files, options, workers, progress)
            except Exception as error:
                return error

        async def tell(number: int, result: BuildReport | Exception) -> None:
            # The albums before are finished, and stay.
            if isinstance(result, Exception):
                raise result
            results.append((wanted[number][0], result))

        with meter("encoding", count, total, stopped=_STOPPED) as progress:
            # While the last photos of one album are encoded, idle workers begin the next album.
            await run_in_order([partial(build, *each) for each in wanted], tell, 1)
        return report_built(results, left_out, as_json)

    return with_workers(work)


def _check_apart(folder: Path, output: Path, recursive: bool) -> None:
    """Raise UsageError if the albums would lie among the photos."""
    inside, target = folder.resolve(strict=True), output.resolve()
    if not inside.is_dir():
        raise UsageError(f"{folder} is not a folder; name the folder of the photos")
    if target == inside or (recursive and inside in target.parents):
        raise UsageError(f"the albums would lie among the photos of {folder}; choose with -o")


def _check_targets(targets: list[AlbumPaths], force: bool) -> None:
    """Raise UsageError for two albums of one name, AlbumExists for one that exists."""
    checked = set()
    for paths in targets:
        if paths in checked:
            raise UsageError(
                f"two folders would both become {paths.xml}; run them apart, with another -o"
            )
        checked.add(paths)
        if paths.xml.exists() and not force:
            raise AlbumExists(paths.xml)
