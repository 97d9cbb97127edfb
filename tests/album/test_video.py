"""Every codec codes canvases and decodes them. Packets keep their bytes in the video file."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.album import canvas, photos, quality, video
from fsmount.album.canvas import Samples
from fsmount.album.photos import Photo
from fsmount.album.video import CODECS, Codec, Decoder, VideoWriter
from fsmount.errors import Damaged, FsmountError
from tests.support.photos import burst, jpeg, scene

BOX = 128


def photo(seed: int) -> Photo:
    return photos.read(jpeg(scene(seed, 121, 90)), BOX)


def painted(one: Photo, codec: Codec) -> list[Samples]:
    return canvas.paint(one.planes, one.rect, BOX, halve_height=codec.halve_height)


@pytest.fixture(params=list(CODECS), name="codec")
def each_codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]


def test_no_encoder_takes_real_time_priority(codec: Codec) -> None:
    """The programs beside ours must go on. SVT-AV1 asks for it in a process of root."""
    before = os.sched_getscheduler(0)
    video.template(codec, BOX)
    encoder = video._encoder(codec, BOX, codec.grade, chained=False)
    tasks = map(int, os.listdir("/proc/self/task"))
    assert {os.sched_getscheduler(task) for task in tasks} == {before}
    del encoder


def test_photos_come_back_alike_and_in_order(codec: Codec, tmp_path: Path) -> None:
    like = video.template(codec, BOX)
    extradata = video.extradata_of(like)
    shown = [photo(seed) for seed in range(3)]
    packets = [video.encode(codec, [painted(one, codec)], codec.grade, extradata) for one in shown]
    path = tmp_path / f"a{codec.suffix}"
    with VideoWriter(path, like) as writer:
        for (packet,) in packets:
            writer.add(packet, True)
    found = video.packets_in(path)
    data = path.read_bytes()
    assert [(one.pts, one.is_key) for one in found] == [(0, True), (1, True), (2, True)]
    # The file holds the packets as they were written, so that offsets and hashes stay valid.
    assert [[data[one.offset : one.offset + one.size]] for one in found] == packets
    for one, packet_alone in zip(shown, packets, strict=True):
        planes = canvas.crop(Decoder(codec, extradata).decode(packet_alone)[0], one.rect)
        assert quality.measure(one.planes[0], planes[0]).ssim > 0.93
        for wanted, got in zip(one.planes[1:], planes[1:], strict=True):
            error = wanted.astype(int) - got
            assert np.abs(error).mean() < 8
            assert abs(error.mean()) < 1


def test_grades_order_size_and_quality(codec: Codec) -> None:
    extradata = video.extradata_of(video.template(codec, BOX))
    one = photo(4)
    found = []
    for grade in (codec.grade, codec.finest):
        packets = video.encode(codec, [painted(one, codec)], grade, extradata)
        planes = canvas.crop(Decoder(codec, extradata).decode(packets)[0], one.rect)
        found.append((len(packets[0]), quality.measure(one.planes[0], planes[0]).ssim))
    assert found[0] < found[1]


def test_prores_is_what_ffmpeg_makes_with_the_same_qscale(tmp_path: Path) -> None:
    """The blog post makes its format by `ffmpeg -c:v prores_ks -qscale:v 16`."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    codec = CODECS["prores"]
    like = video.template(codec, BOX)
    made = [painted(photo(seed), codec) for seed in range(3)]
    for grade in (4, 16, 40):
        path = tmp_path / f"{grade}.mov"
        with VideoWriter(path, like) as writer:
            for one in made:
                (packet,) = video.encode(codec, [one], grade, video.extradata_of(like))
                writer.add(packet, True)
        raw = b"".join(
            plane.tobytes()
            for one in made
            for plane in (np.frombuffer(p, np.uint16) for p in video._frame(codec, one).planes)
        )
        theirs = tmp_path / f"theirs-{grade}.mov"
        command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv422p10le"]
        command += ["-s", f"{BOX}x{BOX}", "-r", "1", "-i", "-", "-c:v", "prores_ks"]
        command += ["-qscale:v", str(grade), str(theirs)]
        subprocess.run(command, input=raw, check=True)
        ours = [one.size for one in video.packets_in(path)]
        assert ours == [one.size for one in video.packets_in(theirs)]


def test_a_group_is_smaller_and_decodes_from_its_start(codec: Codec, tmp_path: Path) -> None:
    like = video.template(codec, BOX)
    extradata = video.extradata_of(like)
    shown = [photos.read(jpeg(pixels), BOX) for pixels in burst(1, 5, 121, 90)]
    canvases = [painted(one, codec) for one in shown]
    packets = video.encode(codec, canvases, codec.grade, extradata)
    alone = [video.encode(codec, [one], codec.grade, extradata)[0] for one in canvases]
    if codec.name != "prores":
        assert sum(map(len, packets)) < 0.8 * sum(map(len, alone))
    path = tmp_path / f"a{codec.suffix}"
    with VideoWriter(path, like) as writer:
        for number, packet in enumerate([*alone[:1], *packets, *alone[1:2]]):
            writer.add(packet, number in (0, 1, 6))
    data = path.read_bytes()
    stored = [data[one.offset : one.offset + one.size] for one in video.packets_in(path)]
    assert stored == [*alone[:1], *packets, *alone[1:2]]
    for count in (1, 3, 5):
        last = Decoder(codec, extradata).decode(stored[1 : 1 + count])[-1]
        planes = canvas.crop(last, shown[count - 1].rect)
        assert quality.measure(shown[count - 1].planes[0], planes[0]).ssim > 0.9


def test_a_continued_video_keeps_its_packets(codec: Codec, tmp_path: Path) -> None:
    like = video.template(codec, BOX)
    extradata = video.extradata_of(like)
    packets = [
        video.encode(codec, [painted(photo(seed), codec)], codec.grade, extradata)[0]
        for seed in range(3)
    ]
    old, new = tmp_path / f"old{codec.suffix}", tmp_path / f"new{codec.suffix}"
    for path, source, count in ((old, like, 2), (new, old, 3)):
        with VideoWriter(path, source) as writer:
            for packet in packets[:count]:
                writer.add(packet, True)
    data = new.read_bytes()
    assert [data[one.offset : one.offset + one.size] for one in video.packets_in(new)] == packets
    assert video.extradata_of(new.read_bytes()) == extradata


@pytest.mark.parametrize("name", ["av1", "h264", "hevc"])
def test_packets_for_another_canvas_are_refused(name: str) -> None:
    codec = CODECS[name]
    extradata = video.extradata_of(video.template(codec, 2 * BOX))
    with pytest.raises(FsmountError, match="do not fit"):
        video.encode(codec, [painted(photo(1), codec)], codec.grade, extradata)


def test_damaged_packets_are_an_error() -> None:
    codec = CODECS["av1"]
    extradata = video.extradata_of(video.template(codec, BOX))
    with pytest.raises(Damaged):
        Decoder(codec, extradata).decode([b"\x0a\x0b nothing"])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_damage_that_pillow_passes_over_is_found(mode: str, more: dict[str, int]) -> None:
    stream = io.BytesIO()
    Image.fromarray(scene(1, 400, 300)).convert(mode).save(stream, "JPEG", quality=92, **more)
    whole = stream.getvalue()
    assert not video.is_damaged_jpeg(whole)
    assert not video.is_damaged_jpeg(whole + b"a trailer as telephones write it" * 100)
    rng = random.Random(1)
    silent = found = 0
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(20):
            data[rng.randrange(len(data) // 2, len(data) - 2)] ^= 1 << rng.randrange(8)
        try:
            Image.open(io.BytesIO(data)).load()
        except OSError:
            continue
        silent += 1
        found += video.is_damaged_jpeg(bytes(data))
    assert silent > 0
    assert found > 0


@pytest.mark.parametrize("data", [b"", b"nothing", b"\0\0\0\x18ftypisom" * 9])
def test_what_is_no_video_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(Damaged):
        video.packets_in(path)
