"""Create an album, or append to one. Sources are only read."""

from __future__ import annotations

from collections.abc import Sequence

from fsmount.album import files, video
from fsmount.album.album import Album
from fsmount.album.builder import AlbumBuilder, BuildReport, CreateOptions, Progress
from fsmount.album.files import AlbumPaths
from fsmount.album.jobs import CodecSettings
from fsmount.album.sources import SourceFile
from fsmount.work.workers import Workers


async def create(
    paths: AlbumPaths,
    sources: Sequence[SourceFile],
    options: CreateOptions,
    workers: Workers,
    progress: Progress,
) -> BuildReport:
    """Create an album from files; it replaces an album of the same name.

    Parameters
    ----------
    paths : AlbumPaths
        Where the album goes.
    sources : sequence of SourceFile
        The files, in the order of their frames.
    options : CreateOptions
        The choices of the user.
    workers : Workers
        Running worker processes.
    progress : callable
        Called with (files, bytes) after each file.

    Returns
    -------
    BuildReport
        What became of each file.

    Raises
    ------
    AlbumLocked
        If another process writes the album.
    DiskFull
        If the disk of the album is full. The old album stays.
    FsmountError
        If PyAV or exiftool is not installed, or the encoder does not fit.
    """
    codec = video.CODECS[options.codec]
    grade = codec.grade if options.grade is None else options.grade
    template = video.template(codec, options.box)
    settings = CodecSettings(
        options.codec,
        grade,
        options.box,
        options.jpeg_quality,
        options.floor,
        video.extradata_of(template),
    )
    with files.work_folder(paths):
        replaced = files.read_current(paths)
        builder = AlbumBuilder(paths, settings, options, workers, progress, replaced)
        contents = await builder.build(sources, template, None)
        files.commit(paths, contents, replaced)
    return builder.report


async def append(
    paths: AlbumPaths,
    sources: Sequence[SourceFile],
    skip_others: bool,
    workers: Workers,
    progress: Progress,
) -> BuildReport:
    """Append files to an album, encoded with the album's own settings.

    Packets that the album has stay as they are. A file that the album has already is skipped.
    Parameters, result and errors are those of :func:`create`.

    Raises
    ------
    NoAlbum
        If there is no album at ``paths``.
    """
    with files.work_folder(paths):
        album = Album(paths)
        try:
            header = album.contents.header
            options = CreateOptions(
                codec=header.codec,
                bursts=header.bursts,
                floor=header.floor,
                box=header.box,
                skip_others=skip_others,
            )
            builder = AlbumBuilder(paths, album.settings, options, workers, progress)
            new = builder.drop_known(sources, album)
            if not new:
                return builder.report
            template = video.template(album.settings.video_codec, header.box)
            contents = await builder.build(new, template, album)
            files.commit(paths, contents, None)
        finally:
            album.close()
    return builder.report
