"""The packets of an album's video, each checked against the hash in the XML."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fsmount.album import video
from fsmount.album.album import Album
from fsmount.album.document import PhotoRecord
from fsmount.errors import Damaged


def packets_of(album: Album) -> Iterator[tuple[bytes, bool]]:
    """Yield (packet, whether it is a key packet) of each photo of an album, in order.

    Raises
    ------
    Damaged
        At the first packet whose bytes do not have the recorded hash.
    """
    if not album.contents.photos:
        return
    with album.video.open("rb") as file:
        for record in album.contents.photos:
            packet = os.pread(file.fileno(), record.packet_bytes, record.offset)
            if hashlib.sha256(packet).hexdigest() != record.packet_sha256:
                raise Damaged(album.video, reason=f"frame {record.frame} has changed")
            yield packet, record.key == record.frame


def with_offsets(path: Path, records: Sequence[PhotoRecord]) -> list[PhotoRecord]:
    """Return the records with the offsets that their packets have in a finished video.

    Raises
    ------
    Damaged
        If the video does not hold exactly the recorded packets.
    """
    found = video.packets_in(path)
    if len(found) != len(records):
        raise Damaged(path, reason=f"it has {len(found)} packets instead of {len(records)}")
    updated = []
    with path.open("rb") as file:
        for record, packet_info in zip(records, found, strict=True):
            packet = os.pread(file.fileno(), packet_info.size, packet_info.offset)
            if hashlib.sha256(packet).hexdigest() != record.packet_sha256:
                raise Damaged(path, reason=f"frame {record.frame} is not as it was encoded")
            updated.append(replace(record, offset=packet_info.offset))
    return updated
