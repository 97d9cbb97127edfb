"""A change of an album is atomic: death at any system call leaves the old one, the new or none."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.album import document, files
from fsmount.album.document import AlbumContents
from fsmount.album.files import AlbumPaths
from fsmount.errors import AlbumLocked
from tests.album.test_document import HEADER, OTHER


def state(video: bytes, other: bytes, suffix: str = ".mp4") -> AlbumContents:
    """An album whose "video" is a few bytes."""
    return AlbumContents(
        dataclasses.replace(
            HEADER,
            video=f"a{suffix}".encode(),
            video_bytes=len(video),
            video_sha256=hashlib.sha256(video).hexdigest(),
            files=b"a.files",
        ),
        [],
        [dataclasses.replace(OTHER, name=b"n.txt", bytes=len(other))],
    )


def make(place: AlbumPaths, video: bytes, other: bytes, suffix: str = ".mp4") -> None:
    """Build and commit an album whose "video" is a few bytes."""
    with files.work_folder(place) as work:
        before = files.read_current(place)
        contents = state(video, other, suffix)
        (work / f"a{suffix}").write_bytes(video)
        (work / "a.files").mkdir()
        (work / "a.files" / "n.txt").write_bytes(other)
        parts = [document.start_of(contents.header), *document.end_of(contents.others)]
        (work / "a.xml").write_bytes(b"".join(parts))
        files.commit(place, contents, before)


def shown(place: AlbumPaths) -> tuple[bytes, bytes] | None:
    """The video and the file that a reader finds; None if there is no album."""
    if not place.xml.exists():
        return None
    contents = document.read(place.xml)
    (other,) = contents.others
    video = files.video_path(place, contents).read_bytes()
    return video, files.other_path(place, contents, other).read_bytes()


class _Died(BaseException):
    pass


CALLS: list[tuple[object, str]] = [
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "rmdir"),
    (Path, "mkdir"),
    (os, "fsync"),
]


def die_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Raise at the n-th system call that changes a file, and at all later ones.

    So nothing changes any more, as after the death of the process.
    """
    seen = 0

    def wrap(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **more: object) -> object:
            nonlocal seen
            seen += 1
            if seen >= number:
                raise _Died
            return call(*args, **more)

        return counted

    for owner, name in CALLS:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    return lambda: seen


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_death_at_any_call(tmp_path: Path, suffix: str) -> None:
    """A reader finds the old state or the new one. The next writer goes on from either."""
    number, states = 0, set()
    while True:
        number += 1
        place = AlbumPaths(tmp_path / str(number), "a")
        make(place, b"old video", b"old file")
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, number)
            try:
                make(place, b"the new video", b"the new file", suffix)
                ended = True
            except _Died:
                ended = False
        found = shown(place)
        assert found in ((b"old video", b"old file"), (b"the new video", b"the new file"))
        states.add(found)
        make(place, b"third", b"3")
        assert shown(place) == (b"third", b"3")
        names = {path.name for path in place.folder.iterdir()}
        assert names == {"a.xml", "a.mp4", "a.files"}
        if ended:
            break
    assert len(states) == 2
    assert number > 10


def test_death_of_the_first_create_leaves_none_or_all(tmp_path: Path) -> None:
    number, states = 0, set()
    while True:
        number += 1
        place = AlbumPaths(tmp_path / str(number), "a")
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, number)
            try:
                make(place, b"new", b"file")
                ended = True
            except _Died:
                ended = False
        states.add(shown(place))
        if ended:
            break
    assert states == {None, (b"new", b"file")}


def test_a_second_writer_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    place = AlbumPaths(tmp_path, "a")
    with files.work_folder(place) as work:
        (work / "x").write_bytes(b"")
        with pytest.raises(AlbumLocked), files.work_folder(place):
            pass
        assert (work / "x").exists()
    assert not place.work.exists()


def test_what_was_left_half_done_is_forgotten(tmp_path: Path) -> None:
    place = AlbumPaths(tmp_path, "a")
    make(place, b"old", b"file")
    place.work.mkdir()
    (place.work / "a.mp4").write_bytes(b"the")
    assert shown(place) == (b"old", b"file")
    with files.work_folder(place) as work:
        assert not list(work.iterdir())


def test_a_damaged_album_can_be_made_anew(tmp_path: Path) -> None:
    place = AlbumPaths(tmp_path, "a")
    make(place, b"old", b"file")
    place.xml.write_bytes(place.xml.read_bytes()[:300])
    make(place, b"new", b"file")
    assert shown(place) == (b"new", b"file")


@pytest.mark.parametrize("name", ["a.xml", "a.mp4", "a.mov", "a"])
def test_an_album_has_several_names(name: str) -> None:
    assert files.paths_of(Path("x") / name) == AlbumPaths(Path("x"), "a")


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    place = AlbumPaths(tmp_path, "a")
    make(place, b"old", b"file")
    (place.files / "mine.txt").write_bytes(b"mine")
    with files.work_folder(place) as work:
        before = document.read(place.xml)
        contents = dataclasses.replace(state(b"new", b""), others=[])
        (work / "a.mp4").write_bytes(b"new")
        (work / "a.xml").write_bytes(b"".join([document.start_of(contents.header), b"</rdf:RDF>"]))
        files.commit(place, contents, before)
    assert [path.name for path in place.files.iterdir()] == ["mine.txt"]


def test_what_is_kept_keeps_its_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    os.utime(source, ns=(1, 1_404_563_696_123_456_789))
    kept = files.copy_verbatim(source, tmp_path / "a.files", lambda name: True)
    copy = tmp_path / "a.files" / "source"
    assert kept == files.CopiedFile(3_000_000, files.sha256_of(source), b"source")
    assert copy.stat().st_mtime_ns == 1_404_563_696_123_456_789
    again = files.copy_verbatim(source, tmp_path / "a.files", lambda name: True)
    assert again.name.startswith(b"source~")
    assert (tmp_path / "a.files" / os.fsdecode(again.name)).read_bytes() == source.read_bytes()
