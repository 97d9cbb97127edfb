"""Albums made of folders: served photos, kept files, appended photos."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fsmount.album import jobs, video
from fsmount.album.album import Album
from fsmount.album.quality import measure
from fsmount.errors import Damaged, FsmountError
from tests.support.albums import BOX, add, create, extract, packets, single, verify
from tests.support.photos import camera, exif, folder, scene


def tags(path: Path) -> dict[str, Any]:
    """The metadata that exiftool finds in a file, without tags about the file and its pixels."""
    command = ["exiftool", "-json", "-a", "-G1", "-b", "-n", str(path)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert isinstance(found, dict)
    dull = ("System:", "File:", "ExifTool:", "Composite:", "SourceFile")
    return {
        name: value
        for name, value in found.items()
        if not name.startswith(dull) or name == "File:Comment"
    }


# -- served photos


@pytest.mark.parametrize("codec", list(video.CODECS))
async def test_photos_come_out_upright_with_their_tags(tmp_path: Path, codec: str) -> None:
    source = folder(tmp_path / "Italy", 2)
    os.utime(source / "IMG_0.JPG", ns=(7, 1_404_563_696_123_456_789))
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    place, summary = await create(source, tmp_path / "out", codec=codec)
    assert (len(summary.photos), summary.unfit, summary.problems) == (2, [], [])
    suffix = ".mov" if codec == "prores" else ".mp4"
    assert {path.name for path in place.folder.iterdir()} == {f"Italy{suffix}", "Italy.xml"}
    found = await extract(place, tmp_path / "dest")
    assert (found.files, found.problems, found.not_identical) == (2, [], [])
    for entry in summary.photos:
        name = os.fsdecode(entry.shown)
        original, copy = source / name, tmp_path / "dest" / name
        info = copy.stat()
        assert info.st_size == entry.served_bytes
        assert info.st_mtime_ns == original.stat().st_mtime_ns == entry.mtime_ns
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == entry.served_sha256
        assert entry.sha256 == hashlib.sha256(before[name]).hexdigest()
        with Image.open(original) as first, Image.open(copy) as second:
            wanted = ImageOps.exif_transpose(first).resize(second.size, Image.Resampling.BICUBIC)
            assert max(second.size) == BOX
            got = np.asarray(second.convert("L"))
            assert second.info["icc_profile"] == first.info["icc_profile"]
        assert measure(np.asarray(wanted.convert("L")), got).ssim > 0.9
        old, new = tags(original), tags(copy)
        assert old.pop("IFD0:Orientation") == entry.orientation
        assert new.pop("IFD0:Orientation") == 1
        if entry.orientation != 1:
            # The album turns the thumbnail like the photo, and leaves it in its place.
            assert old.pop("IFD1:ThumbnailImage") != new.pop("IFD1:ThumbnailImage")
        assert old["Canon:CanonImageType"] == "fsmount maker note"
        assert old == new
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def _heic(path: Path) -> bool:
    """Write a photo as iPhones do. Returns False if this machine cannot read such files."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    Image.fromarray(scene(5, 90, 70)).save(path, "HEIF", exif=exif(1)[6:])
    return True


async def test_every_kind_of_file_is_shown_or_kept(tmp_path: Path) -> None:
    source = folder(tmp_path / "mixed", 1)
    Image.fromarray(scene(1, 90, 70)).convert("L").save(source / "grey.png")
    Image.fromarray(scene(2, 90, 70)).convert("CMYK").save(source / "cmyk.jpg")
    Image.fromarray(np.arange(6300, dtype=np.uint16).reshape(70, 90)).save(source / "deep.tif")
    Image.fromarray(scene(3, 900, 90)).save(source / "panorama.jpg")
    Image.fromarray(scene(4, 1, 1)).save(source / "one.jpg")
    heic = _heic(source / "IMG_7.HEIC")
    strange = os.fsdecode(b"\xff\xfe \n<&>.jpg")
    (source / strange).write_bytes(camera(9))
    kept = {
        "empty.jpg": b"",
        "text.jpg": b"text",
        "cut.jpg": camera(1)[:9000],
        "IMG_0.mov": b"\0\0\0\x14ftypqt  moov",
        "grey.png.jpg": b"takes the name",
    }
    for name, data in kept.items():
        (source / name).write_bytes(data)
    (source / "link.jpg").symlink_to("one.jpg")
    os.mkfifo(source / "pipe")
    place, summary = await create(source, tmp_path / "out")
    shown = {entry.shown for entry in summary.photos}
    assert shown == {
        b"IMG_0.JPG",
        b"grey.png~2.jpg",
        b"cmyk.jpg",
        b"deep.tif.jpg",
        b"panorama.jpg",
        b"one.jpg",
        os.fsencode(strange),
    } | ({b"IMG_7.HEIC.jpg"} if heic else set())
    assert {Path(path).name for path, _ in summary.unfit} == set(kept) - {"IMG_0.mov"}
    assert {Path(path).name for path, _ in summary.problems} == {"link.jpg", "pipe"}
    found = await extract(place, tmp_path / "dest")
    assert found.problems == []
    assert {name: (tmp_path / "dest" / name).read_bytes() for name in kept} == kept
    assert len(list((tmp_path / "dest").iterdir())) == len(shown) + len(kept)
    assert Image.open(tmp_path / "dest" / "one.jpg").size == (1, 1)
    assert Image.open(tmp_path / "dest" / "panorama.jpg").size == (256, 26)
    found = await verify(place)
    assert (found.files, found.problems, found.not_identical) == (12 + heic, [], [])


async def test_others_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", 1)
    (source / "notes.txt").write_text("notes")
    place, summary = await create(source, tmp_path / "out", skip_others=True)
    assert not place.files.exists()
    assert [(other.name, other.kept) for other in summary.others] == [(b"notes.txt", False)]
    album = Album(place)
    assert [other.name for other in album.contents.others] == [b"notes.txt"]
    assert album.other_files() == []
    album.close()


async def test_a_folder_without_photos_is_an_album_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    place, _ = await create(tmp_path / "a", tmp_path / "out")
    assert {path.name for path in place.folder.iterdir()} == {"a.xml", "a.files"}
    assert (await verify(place)).files == 1
    # A photo that is appended later is the first of the album.
    summary = await add(place, folder(tmp_path / "b", 1))
    assert len(summary.photos) == 1
    assert (await verify(place)).files == 2


async def test_without_exiftool_nothing_is_made_and_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "a", 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FsmountError, match="libimage-exiftool-perl"):
        await create(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


async def test_no_other_program_than_exiftool_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PATH has no ffmpeg and no ImageMagick. The album does not even look for them."""
    source = folder(tmp_path / "a", 2)
    exiftool = shutil.which("exiftool")
    assert exiftool is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "exiftool").symlink_to(exiftool)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    programs = []
    popen = subprocess.Popen.__init__

    def noted(self: Any, command: Any, *args: Any, **more: Any) -> None:
        programs.append(Path(command[0]).name)
        popen(self, command, *args, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    for codec in ("av1", "prores"):
        place, summary = await create(source, tmp_path / codec, codec=codec)
        assert len(summary.photos) == 2
        assert (await extract(place, tmp_path / f"{codec} out")).files == 2
    assert {name for name in programs if not name.startswith("python")} == {"exiftool"}
    assert programs.count("exiftool") == 2  # one for each album, for any number of photos


def peak_bytes(source: Path, output: Path, *more: str) -> int:
    """The peak of memory in bytes of `album create` itself, without its workers."""
    code = "import resource, sys\nfrom fsmount.cli import main\ntry:\n    main(sys.argv[1:])\n"
    code += "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    command = [sys.executable, "-c", code, "album", "create", str(source), "-o", str(output)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) << 10


@pytest.mark.parametrize("more", [(), ("--bursts",)])
def test_memory_does_not_grow_with_the_folder(tmp_path: Path, more: tuple[str, ...]) -> None:
    source = tmp_path / "a"
    folder(source, 4, width=90, height=70)
    few = peak_bytes(source, tmp_path / "few", "--box", "1024", *more)
    for number in range(4, 64):
        shutil.copy(source / f"IMG_{number % 4}.JPG", source / f"IMG_{number}.JPG")
    many = peak_bytes(source, tmp_path / "many", "--box", "1024", *more)
    # 60 canvases would be 180 MB, 60 heads and descriptions 1 MB.
    assert many - few < 20 << 20


# -- another machine


async def test_the_size_holds_with_other_decoders_and_encoders(tmp_path: Path) -> None:
    """The served size is the recorded one on another machine.

    Here ffmpeg of the system decodes the frames, and the JPEG encoder has other tables.
    """
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    source = folder(tmp_path / "a", 2)
    for codec in ("av1", "h264", "prores"):
        place, summary = await create(source, tmp_path / codec, codec=codec)
        album = Album(place)
        kind = video.CODECS[codec]
        pixels = {"av1": "yuv420p", "h264": "yuvj420p", "prores": "yuvj422p"}[codec]
        command = ["ffmpeg", "-v", "error", "-i", str(album.video), "-f", "rawvideo"]
        command += ["-pix_fmt", pixels, "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        chroma = (BOX // 2 if kind.halve_height else BOX), BOX // 2
        parts = BOX * BOX, chroma[0] * chroma[1], chroma[0] * chroma[1]
        for entry in summary.photos:
            at = entry.frame * sum(parts)
            frame = []
            for number, size in enumerate(parts):
                plane = np.frombuffer(raw[at : at + size], np.uint8)
                frame.append(plane.reshape((BOX, BOX) if number == 0 else chroma))
                at += size
            served, _ = jobs.jpeg_from_canvas(frame, album.request_for(entry), album.settings)
            assert len(served) == entry.served_bytes
            with Image.open(io.BytesIO(served)) as image:
                theirs = np.asarray(image.convert("L"))
            ours, same = jobs.render_jpeg(album.request_for(entry), album.settings)
            assert same
            with Image.open(io.BytesIO(ours)) as image:
                assert measure(np.asarray(image.convert("L")), theirs).ssim > 0.97
        album.close()


async def test_the_size_holds_with_a_library_that_needs_more_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, (entry,) = await single(tmp_path)
    album = Album(place)
    save = Image.Image.save

    def coarse(image: Image.Image, *args: Any, **more: Any) -> None:
        save(image, *args, **{**more, "subsampling": 0})

    monkeypatch.setattr(Image.Image, "save", coarse)
    data, same = jobs.render_jpeg(album.request_for(entry), album.settings)
    album.close()
    assert not same
    assert len(data) == entry.served_bytes
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (256, 192)


# -- append


async def test_append_keeps_every_packet_and_skips_what_is_there(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", 2)
    (source / "notes.txt").write_text("notes")
    place, _ = await create(source, tmp_path / "out")
    before, old = packets(place), Album(place)
    described = [old.description(entry) for entry in old.contents.photos]
    late = tmp_path / "late"
    shutil.copytree(source, late)
    (late / "IMG_0.JPG").write_bytes(camera(77))
    (late / "new.jpg").write_bytes(camera(78, orientation=8))
    (late / "new.txt").write_text("new")
    summary = await add(place, late)
    assert (len(summary.photos), len(summary.others), summary.already_present) == (1, 1, 2)
    assert [Path(path).name for path, _ in summary.problems] == ["IMG_0.JPG"]
    assert packets(place)[:2] == before
    album = Album(place)
    assert album.contents.photos[:2] == old.contents.photos
    assert [album.description(one) for one in album.contents.photos[:2]] == described
    assert album.contents.photos[2].frame == 2
    album.close()
    old.close()
    assert (await verify(place)).files == 5
    assert (await add(place, late)).already_present == 4


async def test_append_to_a_damaged_video_changes_nothing(tmp_path: Path) -> None:
    place, (entry,) = await single(tmp_path)
    path = place.folder / "a.mp4"
    data = bytearray(path.read_bytes())
    data[entry.offset + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        await add(place, folder(tmp_path / "b", 2))
    assert path.read_bytes() == data
    assert not place.work.exists()
