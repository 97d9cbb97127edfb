"""Albums as tests make and read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsmount.album import building, folders, reading
from fsmount.album.album import Album
from fsmount.album.building import Choices, Summary
from fsmount.album.files import Place
from fsmount.work.workers import Workers
from tests.support.photos import folder

BOX = 256


async def create(source: Path, output: Path, **choices: Any) -> tuple[Place, Summary]:
    place = Place(output, source.name)
    async with Workers(2, memory_limit=None) as workers:
        found: list[tuple[str, str]] = []
        items = folders.scan(source, found)
        settings = Choices(**{"box": BOX, **choices})
        summary = await building.create(place, items, settings, workers, lambda *_: None)
        summary.problems += found
    return place, summary


async def add(place: Place, source: Path) -> Summary:
    async with Workers(2, memory_limit=None) as workers:
        items = folders.scan(source, [])
        return await building.append(place, items, False, workers, lambda *_: None)


async def extract(place: Place, dest: Path) -> reading.Found:
    album = Album(place)
    async with Workers(2, memory_limit=None) as workers:
        extractor = reading.Extractor(album, dest, workers, lambda *_: None)
        await extractor.extract(force=False)
    album.close()
    return extractor.found


async def verify(place: Place) -> reading.Found:
    album = Album(place)
    async with Workers(2, memory_limit=None) as workers:
        verifier = reading.Verifier(album, workers, lambda *_: None)
        await verifier.verify()
    album.close()
    return verifier.found


def packets(place: Place) -> list[bytes]:
    album = Album(place)
    found = [packet for packet, _ in building.packets_of(album)]
    album.close()
    return found


async def single(tmp_path: Path, **choices: Any) -> tuple[Place, list[Any]]:
    place, summary = await create(folder(tmp_path / "a", 1), tmp_path / "out", **choices)
    return place, summary.photos
