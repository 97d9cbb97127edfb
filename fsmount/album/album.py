"""An album open for reading: its photos by name, and what a worker needs to serve one."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from fsmount.album import document
from fsmount.album.document import Contents, Entry, Other
from fsmount.album.files import Place, other_of, video_of
from fsmount.album.jobs import Settings, Wanted
from fsmount.errors import NoAlbum


class Album:
    """One album; close it when done, or let go of it. What it says is what its files said when it
    was opened."""

    def __init__(self, place: Place) -> None:
        """Raises :class:`NoAlbum`, :class:`Damaged`, :class:`AlbumUnsupported`, OSError."""
        self.place = place
        try:
            self._xml = os.open(place.xml, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoAlbum(place.xml) from None
        self.close = weakref.finalize(self, os.close, self._xml)
        try:
            self.contents: Contents = document.read(place.xml, self._xml)
        except BaseException:
            self.close()
            raise
        self.video = video_of(place, self.contents)
        self._at = {entry.shown: number for number, entry in enumerate(self.contents.photos)}
        self._others = {other.name: other for other in self.contents.others if other.kept}

    @property
    def settings(self) -> Settings:
        """How its photos are coded."""
        header = self.contents.header
        return Settings(
            header.codec,
            header.grade,
            header.box,
            header.jpeg_quality,
            header.floor,
            header.extradata,
        )

    def photo(self, shown: bytes) -> Entry | None:
        """The photo served under a name, or None."""
        number = self._at.get(shown)
        return None if number is None else self.contents.photos[number]

    def after(self, entry: Entry) -> Entry | None:
        """The photo that a viewer shows next."""
        number = self._at[entry.shown] + 1
        return self.contents.photos[number] if number < len(self.contents.photos) else None

    def other(self, name: bytes) -> Other | None:
        """The file kept verbatim under a name, or None."""
        return self._others.get(name)

    def others(self) -> list[Other]:
        """All that are kept verbatim."""
        return list(self._others.values())

    def path_of(self, other: Other) -> Path:
        """Where a file kept verbatim is."""
        return other_of(self.place, self.contents, other)

    def head(self, entry: Entry) -> bytes:
        """The start of the served file, known without decoding; raises :class:`Damaged`."""
        span = self.contents.heads[self._at[entry.shown]]
        return document.head_at(self._xml, span, entry)

    def description(self, entry: Entry) -> bytes:
        """The photo's whole element in the XML."""
        start, end = self.contents.spans[self._at[entry.shown]]
        return os.pread(self._xml, end - start, start)

    def wanted(self, entry: Entry) -> Wanted:
        """What a worker needs to serve a photo."""
        group = self.contents.photos[entry.key : entry.frame + 1]
        return Wanted(
            name=os.fsdecode(entry.shown),
            video=str(self.video),
            packets=tuple((one.offset, one.packet_bytes, one.packet_sha256) for one in group),
            rect=entry.rect,
            head=self.head(entry),
            served_bytes=entry.served_bytes,
            served_sha256=entry.served_sha256,
        )
