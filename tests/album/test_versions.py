"""Albums that PyAV 18 and 19 made are read, checked and continued by the PyAV that is installed.

They stand in `tests/data/albums`. Each album has three photos of a burst, which are one group, and
one single photo. The SVT-AV1 versions in PyAV 18 and 19 write different sequence headers for the
same settings.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fsmount.album import av1, jobs, photos, video
from fsmount.album.album import Album
from fsmount.album.files import AlbumPaths
from fsmount.album.photos import Photo
from fsmount.errors import FsmountError
from tests.album.test_bursts import shots
from tests.support.albums import add, extract, packets, verify
from tests.support.paths import DATA
from tests.support.photos import burst, jpeg, scene

GOLDEN = DATA / "albums"
NAMES = ["pyav18", "pyav19"]


@pytest.fixture(params=NAMES, name="paths")
def a_copy(request: pytest.FixtureRequest, tmp_path: Path) -> AlbumPaths:
    for path in GOLDEN.glob(f"{request.param}.*"):
        shutil.copy(path, tmp_path)
    return AlbumPaths(tmp_path, request.param)


def groups(paths: AlbumPaths) -> list[tuple[int, int]]:
    album = Album(paths)
    found = [(record.frame, record.key) for record in album.contents.photos]
    album.close()
    return found


async def test_an_album_of_another_version_is_whole_and_read(
    paths: AlbumPaths, tmp_path: Path
) -> None:
    assert groups(paths) == [(0, 0), (1, 0), (2, 0), (3, 3)]
    found = await verify(paths)
    assert (found.files, found.problems) == (4, [])
    found = await extract(paths, tmp_path / "dest")
    assert (found.files, found.problems) == (4, [])


async def test_an_album_of_another_version_is_continued(paths: AlbumPaths, tmp_path: Path) -> None:
    before = packets(paths)
    more = shots(tmp_path / "more", [*burst(5, 3, 128, 96), scene(8, 96, 128)])
    for number, path in enumerate(sorted(more.iterdir())):
        path.rename(more / f"new{number}.jpg")
    report = await add(paths, more)
    assert report.problems == []
    assert groups(paths)[4:] == [(4, 4), (5, 4), (6, 4), (7, 7)]
    assert packets(paths)[:4] == before
    found = await verify(paths)
    assert (found.files, found.problems) == (8, [])
    assert decoded_in_one_go(paths) == 8


def decoded_in_one_go(paths: AlbumPaths) -> int:
    """The number of frames that a player shows. It decodes in one go and ignores groups."""
    album = Album(paths)
    with video._av().open(str(album.video)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    album.close()
    return shown


def sequence_headers() -> list[bytes]:
    found = []
    for name in NAMES:
        album = Album(AlbumPaths(GOLDEN, name))
        found.append(album.settings.extradata)
        album.close()
        found.append(packets(AlbumPaths(GOLDEN, name))[0])
    return found


def test_sequence_headers_of_both_mean_the_same_pictures() -> None:
    found = sequence_headers()
    assert found[0] != found[2]
    assert {av1.read_sequence_header(one) for one in found} == {
        av1.SequenceHeader(
            width=128,
            height=128,
            deep=True,
            primaries=1,
            transfer=13,
            matrix=5,
            full_range=True,
            chroma_position=0,
            film_grain=False,
        )
    }


@pytest.mark.parametrize("data", [b"", b"\x12\x00", b"\x0a\x02\x00\x00", b"\x0a\xff\xff", b"\xff"])
def test_what_has_no_sequence_header_is_an_error(data: bytes) -> None:
    with pytest.raises(av1.NoHeader):
        av1.read_sequence_header(data)


def test_a_key_packet_without_a_header_of_its_own_does_not_fit() -> None:
    extradata, key = sequence_headers()[:2]
    codec = video.CODECS["av1"]
    assert video._fits(codec, key, b"", extradata)
    size = key[1]
    assert not video._fits(codec, key[2 + size :], b"", extradata)


def read(count: int) -> Sequence[Photo]:
    return [photos.read(jpeg(pixels), 128) for pixels in burst(1, count, 128, 96)]


def settings() -> jobs.CodecSettings:
    codec = video.CODECS["av1"]
    extradata = video.extradata_of(video.template(codec, 128))
    return jobs.CodecSettings("av1", codec.grade, 128, 90, 0.9, extradata)


def test_photos_go_one_by_one_where_no_group_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = video.encode
    group = jobs._encode_packets(read(3), settings())
    assert [packet.is_key for packet in group] == [True, False, False]

    def encode(codec: video.Codec, canvases: Any, grade: int, extradata: bytes) -> list[bytes]:
        if len(canvases) > 1:
            raise FsmountError("packets that do not fit this video")
        return plain(codec, canvases, grade, extradata)

    monkeypatch.setattr(video, "encode", encode)
    single = jobs._encode_packets(read(3), settings())
    assert [packet.is_key for packet in single] == [True] * 3
