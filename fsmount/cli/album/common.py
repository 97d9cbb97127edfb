"""What the album commands share: arguments, workers, figures and reports."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import trio

from fsmount.album import jobs
from fsmount.album.album import Album
from fsmount.album.builder import BuildReport
from fsmount.album.files import AlbumPaths
from fsmount.album.reading import ReadReport
from fsmount.album.sources import SourceFile
from fsmount.cli.common.output import (
    SOME_SKIPPED,
    counted,
    emit,
    list_problems,
    printable,
    size,
    warn,
)
from fsmount.cli.common.stores import start_log
from fsmount.work import machine
from fsmount.work.workers import Workers

_TIME_LIMIT_S = 900.0

album_argument = click.argument("album", type=click.Path(path_type=Path))
skip_others_option = click.option(
    "--skip-others", is_flag=True, help="Leave out files that are no photos."
)


def with_workers(work: Callable[[Workers], Awaitable[int]]) -> int:
    """Run ``work`` with a worker process for each core; return its exit code."""

    async def run() -> int:
        async with Workers(
            machine.cores(), time_limit=_TIME_LIMIT_S, memory_limit=None, preload=_preload()
        ) as workers:
            return await work(workers)

    start_log()
    return trio.run(run)


def _preload() -> list[str]:
    """Return what workers import before they start: once, not in each of them.

    Without PyAV a job tells how to install it.
    """
    return [jobs.__name__, *(name for name in ("av",) if importlib.util.find_spec(name))]


def inner_folders(folder: Path) -> list[Path]:
    """List the folders directly in a folder, without symbolic links."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def count_and_bytes(sources: list[SourceFile]) -> tuple[int, int]:
    """Return the number of files and their bytes."""
    return len(sources), sum(source.bytes for source in sources)


def report_built(
    results: list[tuple[AlbumPaths, BuildReport]],
    left_out: list[tuple[str, str]],
    as_json: bool,
) -> int:
    """Print what became of the source files.

    Parameters
    ----------
    results : list
        Each album with its report.
    left_out : list of (path, reason)
        Files that were left out before any album was built.
    as_json : bool
        Whether to print JSON.

    Returns
    -------
    int
        The exit code.
    """
    skipped = [other for _, report in results for other in report.others if not other.kept]
    lists = {
        "unfit": [pair for _, report in results for pair in report.unfit],
        "coarse": [pair for _, report in results for pair in report.coarse],
        "trimmed": [pair for _, report in results for pair in report.trimmed],
        "problems": left_out + [pair for _, report in results for pair in report.problems],
        "skipped": [(os.fsdecode(other.name), other.reason) for other in skipped],
    }
    albums = [{"album": str(paths.xml), **_figures(paths, report)} for paths, report in results]
    emit({"albums": albums, **lists}, "\n".join(_sentence(one) for one in albums), as_json)
    if not as_json:
        for key, words in (
            ("unfit", "photos do not decode and are stored as they are:"),
            ("coarse", "photos are below the quality floor:"),
            (
                "trimmed",
                "photos lose data beside the picture (other pictures, a video, long histories):",
            ),
            ("skipped", "files are in no album (--skip-others):"),
            ("problems", "left out:"),
        ):
            if lists[key]:
                warn(f"{len(lists[key])} {words}")
                list_problems(lists[key])
    return SOME_SKIPPED if any(lists.values()) else 0


def _figures(paths: AlbumPaths, report: BuildReport) -> dict[str, Any]:
    """Return the figures of the whole album, and the counts of this command."""
    opened = Album(paths)
    try:
        figures = album_figures(opened)
    finally:
        opened.close()
    return figures | {"added": len(report.photos), "known": report.already_present}


def album_figures(album: Album) -> dict[str, Any]:
    """Return the figures of an album for JSON: counts, sizes in bytes, quality, settings."""
    header, photos = album.contents.header, album.contents.photos
    stored = header.video_bytes + album.paths.xml.stat().st_size
    source = sum(record.bytes for record in photos)
    worst = min(photos, key=lambda record: record.ssim, default=None)
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
        "groups": sum(record.key == record.frame for record in photos),
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


def _sentence(figures: dict[str, Any]) -> str:
    """Return an album's figures in words."""
    one = figures
    text = f"{printable(one['album'])}: {counted(one['photos'], 'photo')},"
    text += f" {size(one['source_bytes'])} in {size(one['stored_bytes'])}"
    if one["ratio"] > 1:
        text += f", {one['ratio']} times smaller"
    if one["worst"] is not None:
        text += f"; SSIM {one['mean_ssim']}, worst {one['worst_ssim']} ({printable(one['worst'])})"
    if one["others"]:
        text += f"; {one['others']} other files stored as they are ({size(one['other_bytes'])})"
    if one["known"]:
        text += f"; {one['known']} files were in the album already"
    return text + ". This is a lossy copy: keep the photos."


def warn_of_findings(report: ReadReport, trouble: str) -> None:
    """Print the differences from the time when the album was made.

    Parameters
    ----------
    report : ReadReport
        The findings.
    trouble : str
        What is wrong with the files in ``report.problems``, for example "damaged".
    """
    if report.not_identical:
        warn(
            f"{len(report.not_identical)} photos have other bytes than when the album was made,"
            " because the libraries of this machine differ; their sizes are the same, and nothing"
            " is damaged"
        )
    if report.problems:
        warn(f"{len(report.problems)} {trouble}:")
        list_problems(report.problems)
