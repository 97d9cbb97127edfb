"""The XML document: it is read as it is written, for all names. Damage is an error."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.album import document
from fsmount.album.canvas import Rect
from fsmount.album.document import AlbumContents, AlbumHeader, OtherFile, PhotoRecord
from fsmount.album.tags import ExifTool, is_well_formed
from fsmount.errors import AlbumUnsupported, Damaged, NoAlbum
from tests.support.photos import camera

HEADER = AlbumHeader(
    video=b"a b.mp4",
    video_bytes=1234,
    video_sha256="ab" * 32,
    files=b"",
    codec="av1",
    grade=30,
    box=2048,
    jpeg_quality=90,
    floor=0.92,
    bursts=True,
    extradata=b"\x81\0\xff",
    made_by="fsmount <&>",
)
HEAD = b"\xff\xd8\xff\xe1\0\x04ab"
ENTRY = PhotoRecord(
    name=b"IMG_1.HEIC",
    shown=b"IMG_1.HEIC.jpg",
    frame=0,
    key=0,
    rect=Rect(0, 256, 2048, 1535),
    source_size=(4032, 3024),
    bytes=3_000_000,
    mtime_ns=1_404_563_696_123_456_789,
    mode=0o100644,
    sha256="cd" * 32,
    orientation=6,
    grade=24,
    ssim=0.9731,
    psnr=39.25,
    offset=48,
    packet_bytes=200_000,
    packet_sha256="ef" * 32,
    served_bytes=600_000,
    served_sha256="01" * 32,
    head_bytes=len(HEAD),
    left_out_bytes=0,
)
OTHER = OtherFile(b"IMG_1.MOV", 77, 5, 0o100600, "23" * 32, True, "no photo")
PLAIN = b"<rdf:Description rdf:about='x'>\n</rdf:Description>"


def write(
    path: Path, photos: list[PhotoRecord], others: list[OtherFile], header: AlbumHeader = HEADER
) -> Path:
    described = [document.photo_element(PLAIN, entry, HEAD) for entry in photos]
    parts = [document.start_of(header), *described, *document.end_of(others)]
    path.write_bytes(b"".join(parts))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    second = dataclasses.replace(ENTRY, name=b"\xff\xfe \n'<&>", shown=b" ", frame=1, key=0)
    left_out = dataclasses.replace(
        OTHER, name=b"\x01]]>", kept=False, sha256="", reason="it's <no>"
    )
    path = write(tmp_path / "a.xml", [ENTRY, second], [OTHER, left_out])
    contents = document.read(path)
    assert contents.header == HEADER
    assert contents.photos == [ENTRY, second]
    assert contents.others == [OTHER, left_out]
    with path.open("rb") as file:
        for entry, span in zip(contents.photos, contents.head_spans, strict=True):
            assert document.head_at(file.fileno(), span, entry) == HEAD
    data = path.read_bytes()
    for (start, end), entry in zip(contents.description_spans, contents.photos, strict=True):
        assert data[start:end] == document.photo_element(PLAIN, entry, HEAD).rstrip()


@given(
    st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name)
)
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    if name in (b".", b".."):
        return
    path = tmp_path_factory.getbasetemp() / "names.xml"
    entry = dataclasses.replace(ENTRY, name=name, shown=name)
    write(path, [entry], [dataclasses.replace(OTHER, name=name)])
    contents = document.read(path)
    assert contents.photos == [entry]
    assert contents.others[0].name == name


@pytest.mark.parametrize("name", [b"../x", b"..", b"a/b", b"/etc/x", b"a\0b"])
def test_a_name_that_leads_elsewhere_is_damage(tmp_path: Path, name: bytes) -> None:
    entry = dataclasses.replace(ENTRY, shown=name)
    with pytest.raises(Damaged):
        document.read(write(tmp_path / "a.xml", [entry], []))
    with pytest.raises(Damaged):
        document.read(write(tmp_path / "a.xml", [], [dataclasses.replace(OTHER, name=name)]))
    with pytest.raises(Damaged):
        header = dataclasses.replace(HEADER, video=name)
        document.read(write(tmp_path / "a.xml", [], [], header))


def test_damage_is_said_and_never_read_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", [ENTRY], [OTHER])
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 3, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises((Damaged, NoAlbum)):
            document.read(path)
    path.write_bytes(whole.replace(b"<fsm:Offset>48<", b"<fsm:Offset>x<"))
    with pytest.raises(Damaged):
        document.read(path)
    path.write_bytes(whole.replace(b"<fsm:Frame>0<", b"<fsm:Frame>5<"))
    with pytest.raises(Damaged):
        document.read(path)


def test_a_damaged_head_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", [ENTRY], [])
    path.write_bytes(path.read_bytes().replace(b"<fsm:Head>H4sI", b"<fsm:Head>H5sI"))
    contents: AlbumContents = document.read(path)
    with path.open("rb") as file, pytest.raises(Damaged):
        document.head_at(file.fileno(), contents.head_spans[0], ENTRY)


def test_other_xml_and_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"<a/>")
    assert not document.is_album(path)
    with pytest.raises(NoAlbum):
        document.read(path)
    write(path, [], [], dataclasses.replace(HEADER, format=2))
    assert document.is_album(path)
    with pytest.raises(AlbumUnsupported):
        document.read(path)


def test_exiftools_words_stay_readable_by_exiftool(tmp_path: Path) -> None:
    """One name is no valid text, and one begins like an option."""
    names = [b"\xff\xfe.jpg", b"-n.jpg", b"two\nlines.jpg", b"<&'>.jpg"]
    described = []
    with ExifTool() as tool:
        for name in names:
            path = tmp_path / os.fsdecode(name)
            path.write_bytes(camera(1))
            described.append(tool.describe(path))
        missing = tool.describe(tmp_path / "none.jpg")
    assert missing == b"<rdf:Description rdf:about='none.jpg'>\n</rdf:Description>"
    assert all(b"<IFD0:Model>Canon EOS Test<" in one for one in described)
    parts = [document.photo_element(one, ENTRY, HEAD) for one in described]
    album = tmp_path / "a.xml"
    album.write_bytes(b"".join([document.start_of(HEADER), *parts, *document.end_of([])]))
    ElementTree.parse(album)
    command = ["exiftool", "-a", "-s3", "-Model", "-Rect", str(album)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")
    assert lines.count("Canon EOS Test") == 4
    assert lines.count("0 256 2048 1535") == 4


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie that still waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_exiftool_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from fsmount.album.tags import ExifTool\n"
        "with ExifTool() as tool:\n"
        "    print(tool._process.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    pids = []
    # Each process is killed while exiftool starts. A fault would leave a rest in some tries only.
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            pids.append(int(process.stdout.readline()))
            assert is_alive(pids[-1])
            process.kill()
    end = time.monotonic() + 20
    while any(map(is_alive, pids)):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert os.listdir(tmp_path) == []


def test_a_description_that_would_spoil_the_file_is_noticed() -> None:
    assert is_well_formed(PLAIN)
    assert not is_well_formed(PLAIN + PLAIN)
    assert not is_well_formed(b"<rdf:Description><a></rdf:Description>")
    assert not is_well_formed(b"<rdf:Description>\xff</rdf:Description>")
