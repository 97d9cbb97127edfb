"""An album open for reading: its photos by name, and what a worker needs to render one."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from fsmount.album import document
from fsmount.album.document import AlbumContents, OtherFile, PhotoRecord
from fsmount.album.files import AlbumPaths, other_path, video_path
from fsmount.album.jobs import CodecSettings, PhotoRequest
from fsmount.errors import NoAlbum


class Album:
    """An open album; it shows the state that its files had when it was opened.

    Call :meth:`close` when done. An album that is garbage collected closes its file too.

    Raises
    ------
    NoAlbum
        If there is no XML, or it is not the XML of an album.
    AlbumUnsupported
        If a newer fsmount made the album.
    Damaged
        If the XML cannot be parsed.
    OSError
        If the XML cannot be read.
    """

    def __init__(self, paths: AlbumPaths) -> None:
        self.paths = paths
        try:
            self._xml = os.open(paths.xml, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoAlbum(paths.xml) from None
        self.close = weakref.finalize(self, os.close, self._xml)
        try:
            self.contents: AlbumContents = document.read(paths.xml, self._xml)
        except BaseException:
            self.close()
            raise
        self.video = video_path(paths, self.contents)
        self._photo_numbers = {
            record.shown: number for number, record in enumerate(self.contents.photos)
        }
        self._others = {other.name: other for other in self.contents.others if other.kept}

    @property
    def settings(self) -> CodecSettings:
        """How the album's photos are encoded."""
        header = self.contents.header
        return CodecSettings(
            header.codec,
            header.grade,
            header.box,
            header.jpeg_quality,
            header.floor,
            header.extradata,
        )

    def photo(self, shown: bytes) -> PhotoRecord | None:
        """Return the photo served under a name, or None."""
        number = self._photo_numbers.get(shown)
        return None if number is None else self.contents.photos[number]

    def next_photo(self, record: PhotoRecord) -> PhotoRecord | None:
        """Return the photo of the next frame, or None after the last one."""
        number = self._photo_numbers[record.shown] + 1
        return self.contents.photos[number] if number < len(self.contents.photos) else None

    def other_file(self, name: bytes) -> OtherFile | None:
        """Return the file stored verbatim under a name, or None."""
        return self._others.get(name)

    def other_files(self) -> list[OtherFile]:
        """Return all files that are stored verbatim."""
        return list(self._others.values())

    def path_of(self, other: OtherFile) -> Path:
        """Return the path of a file stored verbatim."""
        return other_path(self.paths, self.contents, other)

    def head(self, record: PhotoRecord) -> bytes:
        """Return the first bytes of the served file, up to the pixels; decodes no frame.

        Raises
        ------
        Damaged
            If the head in the XML does not unpack to its recorded length.
        """
        span = self.contents.head_spans[self._photo_numbers[record.shown]]
        return document.head_at(self._xml, span, record)

    def description(self, record: PhotoRecord) -> bytes:
        """Return the photo's whole ``rdf:Description`` element of the XML."""
        start, end = self.contents.description_spans[self._photo_numbers[record.shown]]
        return os.pread(self._xml, end - start, start)

    def request_for(self, record: PhotoRecord) -> PhotoRequest:
        """Return what a worker needs to render a photo."""
        group = self.contents.photos[record.key : record.frame + 1]
        return PhotoRequest(
            name=os.fsdecode(record.shown),
            video=str(self.video),
            packets=tuple((one.offset, one.packet_bytes, one.packet_sha256) for one in group),
            rect=record.rect,
            head=self.head(record),
            served_bytes=record.served_bytes,
            served_sha256=record.served_sha256,
        )
