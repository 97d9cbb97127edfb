"""Helpers that create, extend, extract and verify albums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsmount.album import create as creation
from fsmount.album import packets as album_packets
from fsmount.album import reading, sources
from fsmount.album.album import Album
from fsmount.album.builder import BuildReport, CreateOptions
from fsmount.album.files import AlbumPaths
from fsmount.work.workers import Workers
from tests.support.photos import folder

BOX = 256


async def create(source: Path, output: Path, **choices: Any) -> tuple[AlbumPaths, BuildReport]:
    """Make an album of a folder with two workers; `choices` are fields of CreateOptions."""
    place = AlbumPaths(output, source.name)
    async with Workers(2, memory_limit=None) as workers:
        found: list[tuple[str, str]] = []
        items = sources.scan_folder(source, found)
        settings = CreateOptions(**{"box": BOX, **choices})
        report = await creation.create(place, items, settings, workers, lambda *_: None)
        report.problems += found
    return place, report


async def add(place: AlbumPaths, source: Path) -> BuildReport:
    """Append the photos of a folder to an album."""
    async with Workers(2, memory_limit=None) as workers:
        items = sources.scan_folder(source, [])
        return await creation.append(place, items, False, workers, lambda *_: None)


async def extract(place: AlbumPaths, dest: Path) -> reading.ReadReport:
    """Write all photos of an album to `dest`. The report names those that failed."""
    album = Album(place)
    async with Workers(2, memory_limit=None) as workers:
        extractor = reading.Extractor(album, dest, workers, lambda *_: None)
        await extractor.extract(force=False)
    album.close()
    return extractor.report


async def verify(place: AlbumPaths) -> reading.ReadReport:
    """Check every packet, photo and verbatim file of an album."""
    album = Album(place)
    async with Workers(2, memory_limit=None) as workers:
        verifier = reading.Verifier(album, workers, lambda *_: None)
        await verifier.verify()
    album.close()
    return verifier.report


def packets(place: AlbumPaths) -> list[bytes]:
    """The video packets of an album, one for each photo in order."""
    album = Album(place)
    found = [packet for packet, _ in album_packets.packets_of(album)]
    album.close()
    return found


async def single(tmp_path: Path, **choices: Any) -> tuple[AlbumPaths, list[Any]]:
    """Make an album of one photo: its paths, and the records of its photos."""
    place, report = await create(folder(tmp_path / "a", 1), tmp_path / "out", **choices)
    return place, report.photos
