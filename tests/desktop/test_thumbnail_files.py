"""The form of thumbnails, by the examples of the standard and by GLib."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fsmount.desktop.scaling import empty
from fsmount.desktop.thumbnail_files import (
    FAILED,
    Thumbnails,
    cache_folder,
    file_uri,
    mtime_text,
    shared_uri,
    texts,
    with_texts,
)

# Bytes that names of files have, among them all of ASCII that may stand in one.
NAMES = [
    bytes(byte for byte in range(1, 128) if byte != ord("/")),
    b"2024-06-06T17:40:00+00:00.png",
    "Bücher/ä €.png".encode(),
    b"not UTF-8 \xff\xfe.png",
    b"100% & more; a=b,c~d'e(f)!*$@+:[x]{y}|\\^`<>\"#?.png",
]


def test_the_examples_of_the_standard() -> None:
    uri = file_uri(b"/home/jens/photos/me.png")
    assert uri == "file:///home/jens/photos/me.png"
    (path,) = Thumbnails(Path("/c"), uri, "1", 1).paths("normal")
    assert path == Path("/c/normal/c6ee772d9e49320e97ec29a7eb5b1697.png")
    shared = Thumbnails(Path("/c"), shared_uri(b"picture.png"), "1", 1, private=False)
    assert shared.uri == "./picture.png"
    assert Path("/c/large/7fd0e41c1612f860427a76c4100745a3.png") in shared.paths("large")


def test_the_name_that_xfce_looks_for_beside_pictures() -> None:
    """As xfce_create_shared_thumbnail_path() of libxfce4util 4.18.1 returned it."""
    shared = Thumbnails(Path("/c"), shared_uri(b"picture.png"), "1", 1, private=False)
    assert Path("/c/normal/d45f07914599f01e1b34c63ec3702f0f.png") in shared.paths("normal")


@pytest.mark.skipif(shutil.which("gio") is None, reason="gio is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_uris_are_those_of_glib(name: bytes, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(name)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    path = os.fsencode(file)
    done = subprocess.run(["gio", "info", path], capture_output=True, check=True)
    found = re.search(rb"^uri: (.*)$", done.stdout, re.MULTILINE)
    assert found is not None
    assert file_uri(path) == found[1].decode()
    assert shared_uri(os.fsencode(file.name)) == "./" + found[1].decode().rpartition("/")[2]


@pytest.mark.parametrize(
    ("value", "wanted"), [("/c", "/c"), ("", "/h/.cache"), ("relative", "/h/.cache")]
)
def test_the_folder_of_the_user(value: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == Path(wanted) / "thumbnails"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/h/.cache/thumbnails")


def test_times() -> None:
    """As GLib 2.74 and tumbler 4.18 accept them."""
    time_ns = 1_700_000_000_610_765_695
    assert mtime_text(time_ns) == "1700000000"
    assert mtime_text(time_ns, xfce=True) == "1700000000.610765"
    assert mtime_text(-1) == "-1"
    assert mtime_text(5, xfce=True) == "0.000000"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_for_this_user_alone(tmp_path: Path) -> None:
    made = Thumbnails(tmp_path / "cache" / "thumbnails", "file:///a%20b.png", "-3", 77)
    assert not made.is_valid("normal")
    made.write("normal", empty())
    made.write(FAILED, empty())
    assert made.is_valid("normal")
    assert made.is_valid(FAILED)
    assert not made.is_valid("large")
    (path,) = made.paths("normal")
    assert mode(path) == 0o600
    assert {mode(folder) for folder in (tmp_path / "cache").rglob("*") if folder.is_dir()} == {
        0o700
    }
    assert os.listdir(path.parent) == [path.name]
    with Image.open(path) as image:
        image.load()
        assert image.info["Thumb::URI"] == "file:///a%20b.png"
        assert image.info["Thumb::MTime"] == "-3"
        assert image.info["Thumb::Size"] == "77"
        assert image.info["Software"].startswith("fsmount-")


@pytest.mark.parametrize("change", [{"mtime": "6"}, {"size": 8}, {"uri": "file:///b.png"}])
def test_another_file_time_or_size_makes_it_invalid(
    tmp_path: Path, change: dict[str, object]
) -> None:
    made = Thumbnails(tmp_path, "file:///a.png", "5", 7)
    made.write("normal", empty())
    other = replace(made, **change)  # type: ignore[arg-type]
    # Under the name of the other file, too.
    made.paths("normal")[0].rename(other.paths("normal")[0])
    assert not other.is_valid("normal")


def test_a_thumbnail_without_the_size_counts(tmp_path: Path) -> None:
    """Other programs write only what the standard requires."""
    made = Thumbnails(tmp_path, "file:///a.png", "5", 7)
    (path,) = made.paths("normal")
    path.parent.mkdir()
    path.write_bytes(with_texts(empty(), {"Thumb::URI": made.uri, "Thumb::MTime": "5"}))
    assert made.is_valid("normal")
    path.write_bytes(with_texts(empty(), {"Thumb::URI": made.uri}))
    assert not made.is_valid("normal")


@pytest.mark.parametrize("data", [b"", b"GIF89a", empty()[:20], empty()[:40], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_thumbnail_is_not_valid(tmp_path: Path, data: bytes) -> None:
    made = Thumbnails(tmp_path, "file:///a.png", "5", 7)
    (path,) = made.paths("normal")
    path.parent.mkdir()
    path.write_bytes(data)
    assert not made.is_valid("normal")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    made = Thumbnails(tmp_path, "file:///a.png", "5", 7)
    (path,) = made.paths("normal")
    path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        made.write("normal", empty())
    assert os.listdir(path.parent) == [path.name]


def test_texts_of_pillow() -> None:
    made = with_texts(empty(), {"a": "b", "Thumb::URI": "file:///c"})
    with Image.open(io.BytesIO(made)) as image:
        image.load()
        assert image.info == {"a": "b", "Thumb::URI": "file:///c"}
    assert texts(made) == {"a": "b", "Thumb::URI": "file:///c"}
