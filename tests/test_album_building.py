"""Albums made of folders: what comes out, what is kept, what is said."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from PIL import Image, ImageOps

from fsmount.album import building, canvas, folders, jobs, reading, video
from fsmount.album.album import Album
from fsmount.album.building import Choices, Summary
from fsmount.album.files import Place, place_of
from fsmount.album.quality import measure
from fsmount.cli import main
from fsmount.codec.workers import Workers
from fsmount.errors import Damaged, FsmountError
from tests.photos import burst, camera, exif, folder, jpeg, scene

BOX = 256
KILLS = int(os.environ.get("FSMOUNT_KILLS", "12"))
KILL_SEED = int(os.environ.get("FSMOUNT_SEED", "1"))


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


def tags(path: Path) -> dict[str, Any]:
    """What exiftool finds in a file of its metadata, without what speaks of file and pixels."""
    command = ["exiftool", "-json", "-a", "-G1", "-b", "-n", str(path)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert isinstance(found, dict)
    dull = ("System:", "File:", "ExifTool:", "Composite:", "SourceFile")
    return {
        name: value
        for name, value in found.items()
        if not name.startswith(dull) or name == "File:Comment"
    }


# -- what comes out


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
    assert (found.files, found.problems, found.other_bytes) == (2, [], [])
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
            # Turned like the photo, in its place.
            assert old.pop("IFD1:ThumbnailImage") != new.pop("IFD1:ThumbnailImage")
        assert old["Canon:CanonImageType"] == "fsmount maker note"
        assert old == new
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def _heic(path: Path) -> bool:
    """A photo as iPhones write them, where that can be read here."""
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
    assert (found.files, found.problems, found.other_bytes) == (12 + heic, [], [])


async def test_others_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", 1)
    (source / "notes.txt").write_text("notes")
    place, summary = await create(source, tmp_path / "out", skip_others=True)
    assert not place.files.exists()
    assert [(other.name, other.kept) for other in summary.others] == [(b"notes.txt", False)]
    album = Album(place)
    assert [other.name for other in album.contents.others] == [b"notes.txt"]
    assert album.others() == []
    album.close()


async def test_a_folder_without_photos_is_an_album_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    place, _ = await create(tmp_path / "a", tmp_path / "out")
    assert {path.name for path in place.folder.iterdir()} == {"a.xml", "a.files"}
    assert (await verify(place)).files == 1
    # A photo that comes later is its first.
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
    """No ffmpeg, no ImageMagick: not even looked for."""
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
    assert programs.count("exiftool") == 2  # one for each album, however many photos


def peak_bytes(source: Path, output: Path, *more: str) -> int:
    """The most memory that `album create` itself takes (not its workers)."""
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
    """Frames by the system's ffmpeg, an encoder with other tables: the size is the recorded one."""
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
            served, _ = jobs.finish(frame, album.wanted(entry), album.settings)
            assert len(served) == entry.served_bytes
            with Image.open(io.BytesIO(served)) as image:
                theirs = np.asarray(image.convert("L"))
            ours, same = jobs.serve(album.wanted(entry), album.settings)
            assert same
            with Image.open(io.BytesIO(ours)) as image:
                assert measure(np.asarray(image.convert("L")), theirs).ssim > 0.97
        album.close()


async def test_the_size_holds_with_a_library_that_needs_more_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, (entry,) = await _one(tmp_path)
    album = Album(place)
    save = Image.Image.save

    def coarse(image: Image.Image, *args: Any, **more: Any) -> None:
        save(image, *args, **{**more, "subsampling": 0})

    monkeypatch.setattr(Image.Image, "save", coarse)
    data, same = jobs.serve(album.wanted(entry), album.settings)
    album.close()
    assert not same
    assert len(data) == entry.served_bytes
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (256, 192)


async def _one(tmp_path: Path, **choices: Any) -> tuple[Place, list[Any]]:
    place, summary = await create(folder(tmp_path / "a", 1), tmp_path / "out", **choices)
    return place, summary.photos


# -- quality


async def test_below_the_floor_it_is_coded_better(tmp_path: Path) -> None:
    _, (plain,) = await _one(tmp_path, floor=0.0, grade=50)
    shutil.rmtree(tmp_path / "a")
    floor = (plain.ssim + 1) / 2
    _, (better,) = await _one(tmp_path, floor=floor, grade=50)
    assert plain.grade == 50
    assert better.grade < 50
    assert better.ssim >= floor > plain.ssim


async def test_what_no_grade_brings_above_the_floor_is_said(tmp_path: Path) -> None:
    place, summary = await create(folder(tmp_path / "a", 1), tmp_path / "out", floor=1.0)
    assert [Path(path).name for path, _ in summary.coarse] == ["IMG_0.JPG"]
    assert summary.photos[0].grade == video.CODECS["av1"].finest
    assert (await verify(place)).files == 1


async def test_the_recorded_quality_is_that_of_the_file(tmp_path: Path) -> None:
    place, (entry,) = await _one(tmp_path)
    album = Album(place)
    frames = video.Decoder(album.settings.kind, album.settings.extradata).all(packets(place))
    album.close()
    with Image.open(tmp_path / "a" / "IMG_0.JPG") as image:
        wanted = image.resize((256, 192), Image.Resampling.BICUBIC).convert("YCbCr").split()[0]
    found = measure(np.asarray(wanted), canvas.cut(frames[0], entry.rect)[0])
    assert (found.ssim, found.psnr) == (entry.ssim, entry.psnr)


# -- photos that look alike


def shots(path: Path, pixels: list[Any]) -> Path:
    path.mkdir()
    for number, one in enumerate(pixels):
        taken = f"2014:07:05 12:00:{number:02d}"
        (path / f"{number:02d}.jpg").write_bytes(jpeg(one, exif=exif(1, taken=taken)))
    return path


def video_bytes(place: Place) -> int:
    return sum(map(len, packets(place)))


async def test_bursts_are_smaller_at_the_same_floor(tmp_path: Path) -> None:
    source = shots(tmp_path / "burst", burst(7, 12, 400, 300))
    alone, _ = await create(source, tmp_path / "alone")
    together, summary = await create(source, tmp_path / "together", bursts=True)
    assert [entry.key for entry in summary.photos] == [0] * 8 + [8] * 4
    assert all(entry.ssim >= building.FLOOR for entry in summary.photos)
    assert video_bytes(alone) > 1.5 * video_bytes(together)
    assert (await verify(together)).files == 12


async def test_unrelated_photos_are_never_larger_with_bursts(tmp_path: Path) -> None:
    source = shots(tmp_path / "walk", [scene(seed, 400, 300) for seed in range(16)])
    alone, _ = await create(source, tmp_path / "alone")
    together, summary = await create(source, tmp_path / "together", bursts=True)
    assert [entry.key for entry in summary.photos] == list(range(16))
    assert video_bytes(together) <= video_bytes(alone)


def encoded(group: list[Path], **more: Any) -> list[jobs.Coded]:
    """A group as workers code it."""
    codec = video.CODECS["av1"]
    extradata = video.extradata_of(video.template(codec, BOX))
    settings = jobs.Settings("av1", codec.grade, BOX, 90, building.FLOOR, extradata)
    answers = jobs.encode([str(path) for path in group], dataclasses.replace(settings, **more))
    assert not any(isinstance(answer, str) for answer in answers)
    return [answer for answer in answers if not isinstance(answer, str)]


def test_a_group_that_is_larger_than_its_photos_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots(tmp_path / "a", burst(7, 3, 400, 300))
    paths = sorted((tmp_path / "a").iterdir())
    assert [one.starts for one in encoded(paths)] == [True, False, False]
    encode = video.encode

    def padded(codec: Any, canvases: Any, *more: Any) -> list[bytes]:
        found = encode(codec, canvases, *more)
        # Of a size that groups cannot be kept for; what follows the packet is not decoded.
        return found if len(canvases) == 1 else [one + b"\x7a\0" * 30_000 for one in found]

    monkeypatch.setattr(video, "encode", padded)
    assert [one.starts for one in encoded(paths)] == [True, True, True]


def test_a_group_with_a_photo_below_the_floor_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots(tmp_path / "a", burst(7, 3, 400, 300))
    paths = sorted((tmp_path / "a").iterdir())
    graded = jobs._graded

    def spoilt(group: Any, settings: Any) -> Any:
        found = graded(group, settings)
        if len(group) > 1:
            worse = dataclasses.replace(found[-1].quality, ssim=building.FLOOR - 0.001)
            found[-1] = dataclasses.replace(found[-1], quality=worse)
        return found

    monkeypatch.setattr(jobs, "_graded", spoilt)
    assert [one.starts for one in encoded(paths)] == [True, True, True]


def test_unrelated_photos_told_to_be_a_group_are_never_larger(tmp_path: Path) -> None:
    """Even where the detector errs."""
    shots(tmp_path / "a", [scene(seed, 400, 300) for seed in range(6)])
    paths = sorted((tmp_path / "a").iterdir())
    together, alone = encoded(paths), [one for path in paths for one in encoded([path])]
    assert sum(len(one.packet) for one in together) <= sum(len(one.packet) for one in alone)
    assert min(one.quality.ssim for one in together) >= building.FLOOR


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
    assert (len(summary.photos), len(summary.others), summary.known) == (1, 1, 2)
    assert [Path(path).name for path, _ in summary.problems] == ["IMG_0.JPG"]
    assert packets(place)[:2] == before
    album = Album(place)
    assert album.contents.photos[:2] == old.contents.photos
    assert [album.description(one) for one in album.contents.photos[:2]] == described
    assert album.contents.photos[2].frame == 2
    album.close()
    old.close()
    assert (await verify(place)).files == 5
    assert (await add(place, late)).known == 4


async def test_append_to_a_damaged_video_changes_nothing(tmp_path: Path) -> None:
    place, (entry,) = await _one(tmp_path)
    path = place.folder / "a.mp4"
    data = bytearray(path.read_bytes())
    data[entry.offset + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        await add(place, folder(tmp_path / "b", 2))
    assert path.read_bytes() == data
    assert not place.work.exists()


# -- damage


async def test_damage_anywhere_is_found_and_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", 2)
    (source / "notes.txt").write_text("notes")
    place, summary = await create(source, tmp_path / "out")
    path = place.folder / "a.mp4"
    whole = path.read_bytes()
    data = bytearray(whole)
    data[summary.photos[1].offset + 50] ^= 1
    path.write_bytes(data)
    assert [name for name, _ in (await verify(place)).problems] == ["IMG_1.JPG"]
    path.write_bytes(whole[:-200])
    assert str(path) in [name for name, _ in (await verify(place)).problems]
    path.write_bytes(whole)
    (place.files / "notes.txt").write_text("other")
    assert [name for name, _ in (await verify(place)).problems] == ["notes.txt"]
    (place.files / "notes.txt").unlink()
    assert [name for name, _ in (await verify(place)).problems] == ["notes.txt"]
    path.unlink()
    assert len((await verify(place)).problems) == 4


# -- death


def start(source: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fsmount", "album", "create", str(source), "--box", "256"]
    return subprocess.Popen([*command, "-o", str(output), "--force"], stdout=subprocess.DEVNULL)


async def state(place: Place) -> list[str] | None:
    """Hashes of the photos of a whole album; None if there is none."""
    if not place.xml.exists():
        return None
    assert (await verify(place)).problems == []
    album = Album(place)
    try:
        return [entry.sha256 for entry in album.contents.photos]
    finally:
        album.close()


def test_kill_9_at_any_moment_leaves_the_old_album_the_new_one_or_none(tmp_path: Path) -> None:
    """Kills at moments all over a run, of a first album and of one that replaces another."""
    old, new = folder(tmp_path / "old" / "a", 3), folder(tmp_path / "new" / "a", 5)
    begun = time.monotonic()
    whole = Place(tmp_path / "whole", "a")
    assert start(new, whole.folder).wait() == 0
    lasts = time.monotonic() - begun
    wanted = trio.run(state, whole)
    place = Place(tmp_path / "replaced", "a")
    assert start(old, place.folder).wait() == 0
    before = trio.run(state, place)
    assert None not in (wanted, before)
    assert wanted != before
    random_moments = random.Random(KILL_SEED)
    seen = set()
    for number in range(KILLS):
        # Most of what may go wrong is near the end.
        part = (number + random_moments.random()) / KILLS
        moment = lasts * (part if number % 2 else 0.7 + 0.4 * part)
        fresh = Place(tmp_path / f"fresh {number}", "a")
        found = fresh if number % 4 < 2 else place
        process = start(new, found.folder)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = trio.run(state, found)
        assert after in ((wanted, None) if found is fresh else (wanted, before)), moment
        seen.add(after is None)
        if found is place and after == wanted:
            assert start(old, place.folder).wait() == 0
    assert True in seen  # some were killed before their end
    assert start(new, place.folder).wait() == 0
    assert trio.run(state, place) == wanted
    assert {path.name for path in place.folder.iterdir()} == {"a.xml", "a.mp4"}


def test_append_killed_at_any_moment_leaves_the_old_album_or_the_new_one(tmp_path: Path) -> None:
    source, late = folder(tmp_path / "a", 3), tmp_path / "late"
    late.mkdir()
    for number in range(3):
        (late / f"late {number}.jpg").write_bytes(camera(50 + number))
    first, place = Place(tmp_path / "first", "a"), Place(tmp_path / "out", "a")
    assert start(source, first.folder).wait() == 0
    before = trio.run(state, first)
    earlier = packets(first)
    command = [sys.executable, "-m", "fsmount", "album", "append", str(place.xml), str(late)]
    lasts, seen = 0.0, set()
    for number in range(max(4, KILLS // 2) + 1):
        shutil.rmtree(place.folder, ignore_errors=True)
        shutil.copytree(first.folder, place.folder)
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if number:
            time.sleep(lasts * (0.3 + 0.75 * number / max(4, KILLS // 2)))
            process.send_signal(signal.SIGKILL)
        process.wait()
        lasts = lasts or time.monotonic() - begun
        after = trio.run(state, place)
        assert after is not None
        assert before is not None
        assert (after == before) or (after[:3] == before and len(after) == 6)
        assert packets(place)[:3] == earlier
        seen.add(len(after))
    assert seen == {3, 6}


# -- the command line


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(out) if out.startswith("{") else {}, err


def _said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit):
        main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_what_is_left_out_is_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(tmp_path / "a", 1)
    (source / "notes.txt").write_text("notes")
    (source / "motion.jpg").write_bytes(camera(3) + b"a video behind")
    code, _, err = run(capsys, "album", "create", source, "-o", tmp_path / "out", "--skip-others")
    assert code == 3
    assert "1 files are in no album (--skip-others):\n  notes.txt: no photo" in err
    assert "motion.jpg: 14 bytes beside the picture are left out" in err


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "in" / "Italy", 2)
    folder(source / "day 1", 1)
    out = tmp_path / "out"
    arguments = ["album", "create", source, "-o", out, "--box", "256x256", "--json"]
    code, found, _ = run(capsys, *arguments)
    assert code == 3
    assert found["problems"] == [[str(source / "day 1"), "left out: a folder (-r)"]]
    code, _, err = run(capsys, *arguments)
    assert (code, "--force" in err) == (2, True)
    code, found, _ = run(capsys, *arguments, "-r", "--force")
    assert code == 0
    assert [Path(one["album"]).relative_to(out) for one in found["albums"]] == [
        Path("Italy.xml"),
        Path("Italy/day 1.xml"),
    ]
    (italy, _) = found["albums"]
    said = _said(capsys, "album", "create", source, "-o", out, "--box", "256", "--force", "-r")
    assert f"{italy['ratio']} times smaller" in said
    assert f"SSIM {italy['mean_ssim']}, worst {italy['worst_ssim']} ({italy['worst']})" in said
    assert "This is a lossy copy: keep the photos." in said
    assert italy["photos"] == 2
    assert italy["ratio"] == round(italy["source_bytes"] / italy["stored_bytes"], 2)
    xml = out / "Italy.xml"
    code, found, _ = run(capsys, "album", "info", "--photos", "--json", xml)
    assert (code, [one["name"] for one in found["list"]]) == (0, ["IMG_0.JPG", "IMG_1.JPG"])
    code, found, _ = run(capsys, "album", "append", xml, source / "day 1", "--json")
    # A file of this name and another time is there.
    assert (code, len(found["problems"])) == (3, 1)
    code, found, _ = run(capsys, "album", "extract", xml, tmp_path / "dest", "--json")
    assert (code, found["files"]) == (0, 2)
    code, found, _ = run(capsys, "album", "verify", xml, "--json")
    assert (code, found["whole"]) == (0, 2)
    data = bytearray((out / "Italy.mp4").read_bytes())
    data[500] ^= 255
    (out / "Italy.mp4").write_bytes(data)
    code, found, _ = run(capsys, "album", "verify", xml, "--json")
    assert (code, len(found["problems"])) == (20, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["create", "{in}", "-o", "{in}"], 2, "among the photos"),
        (["create", "{in}", "-o", "{in}/inside", "-r"], 2, "among the photos"),
        (["create", "{in}", "-o", "{out}", "--box", "63"], 2, "even number"),
        (["create", "{in}", "-o", "{out}", "--qscale", "16"], 2, "--qscale goes with"),
        (["create", "{in}", "-o", "{out}", "--codec", "prores", "--crf", "9"], 2, "--crf with"),
        (["create", "{in}/IMG_0.JPG", "-o", "{out}"], 2, "no folder"),
        (["create", "{in}/none", "-o", "{out}"], 1, "No such file"),
        (["create", "{in}", "{in}/../in", "-o", "{out}"], 2, "two folders"),
        (["verify", "{in}/none.xml"], 10, "no photo album"),
        (["info", "{in}/IMG_0.JPG"], 10, "no photo album"),
        (["append", "{in}/none.xml", "{in}"], 10, "no photo album"),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    source = folder(tmp_path / "in", 1)
    places = {"in": source, "out": tmp_path / "out"}
    found, _, err = run(capsys, "album", *(one.format(**places) for one in arguments))
    assert (found, says in err) == (code, True), err
    assert [path.name for path in source.iterdir()] == ["IMG_0.JPG"]


def test_there_is_no_way_to_delete_sources() -> None:
    from fsmount.cli.album import album

    for command in album.commands.values():
        for parameter in command.params:
            assert not {"--delete", "--remove", "--move", "--remove-source-files"} & {
                *parameter.opts
            }


def test_names_lead_to_the_album(tmp_path: Path) -> None:
    assert place_of(tmp_path / "2014-07 a.b").xml == tmp_path / "2014-07 a.b.xml"
