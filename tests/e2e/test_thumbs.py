"""Thumbnails of a real mount, as GLib's file managers find and check them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fsmount.desktop.thumbnail_files import file_uri
from tests.cli.commands import process
from tests.e2e.mounts import Mount, missing
from tests.support.trees import make_pictures

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

_TUMBLER = Path("/usr/share/dbus-1/services/org.xfce.Tumbler.Thumbnailer1.service")
NAMES = ["2024-06-06T17:40:00+00:00.png", "Bücher & mehr/ä 100%;.png"]


@pytest.fixture(name="cache")
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(mount: Mount, tmp_path: Path) -> None:
    for picture, name in zip(make_pictures(tmp_path / "in", len(NAMES)), NAMES, strict=True):
        (mount.path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(picture, mount.path / name)


def known_to_glib(path: Path) -> tuple[str, str]:
    """The thumbnail that GLib finds for a file, and whether it counts it as valid."""
    done = subprocess.run(
        ["gio", "info", "-a", "thumbnail::*", path], capture_output=True, check=True, text=True
    )
    found = dict(re.findall(r"^  thumbnail::([\w-]+): (.*)$", done.stdout, re.MULTILINE))
    return found.get("path", ""), found.get("is-valid", "")


@pytest.mark.skipif(shutil.which("gio") is None, reason="gio is not installed")
@pytest.mark.parametrize("kind", ["normal", "large"])
def test_glib_takes_them(mount: Mount, tmp_path: Path, cache: Path, kind: str) -> None:
    fill(mount, tmp_path)
    assert known_to_glib(mount.path / NAMES[0]) == ("", "")
    done = process("thumbs", mount.path, "--size", kind)
    assert (done.code, done.err) == (0, "")
    for name in NAMES:
        path, valid = known_to_glib(mount.path / name)
        assert Path(path).parent == cache / "thumbnails" / kind
        assert valid == "TRUE"
    os.utime(mount.path / NAMES[0], (5, 5))
    assert known_to_glib(mount.path / NAMES[0])[1] == "FALSE"
    process("thumbs", mount.path, "--size", kind)
    assert known_to_glib(mount.path / NAMES[0])[1] == "TRUE"
    # Also after the files were encoded, and mounted again.
    mount.stop(drain=True)
    mount.start()
    assert known_to_glib(mount.path / NAMES[1])[1] == "TRUE"
    assert process("thumbs", mount.path, "--size", kind).out.startswith("0 thumbnails")


@pytest.mark.skipif(shutil.which("gio") is None, reason="gio is not installed")
def test_glib_knows_what_is_no_picture(mount: Mount, tmp_path: Path, cache: Path) -> None:
    (mount.path / "broken.png").write_bytes(b"no picture")
    assert process("thumbs", mount.path).code == 3
    assert len(list((cache / "thumbnails" / "fail").rglob("*.png"))) == 1
    # The note is for this program; another one may know how to read the file.
    assert known_to_glib(mount.path / "broken.png") == ("", "")


@pytest.mark.skipif(not _TUMBLER.exists(), reason="tumbler is not installed")
def test_tumbler_takes_those_for_xfce(mount: Mount, tmp_path: Path, cache: Path) -> None:
    """tumbler makes thumbnails for Thunar. It must leave those alone that are there."""
    fill(mount, tmp_path)
    # This one gets none from us, so tumbler has something to do.
    shutil.copy2(tmp_path / "in" / "00.png", mount.path / "last.png")
    wanted = [mount.path / name for name in NAMES]
    assert process("thumbs", "--xfce", *wanted).code == 0
    before = {path: path.read_bytes() for path in cache.rglob("*.png")}
    assert len(before) == 4
    name = "org.freedesktop.thumbnails.Thumbnailer1"
    queue = (
        f"dbus-monitor --session \"type='signal',interface='{name}'\" > \"$3\" &"
        ' until [ -s "$3" ]; do sleep 0.1; done;'
        f" gdbus call --session -d {name} -o /{name.replace('.', '/')} -m {name}.Queue"
        ' "$1" "$2" normal default "uint32 0";'
        ' for i in $(seq 600); do grep -q member=Finished "$3" && exit; sleep 0.1; done; exit 1'
    )
    uris = [file_uri(os.fsencode(path)) for path in [*wanted, mount.path / "last.png"]]
    arguments = [str(uris), str(["image/png"] * len(uris)), str(tmp_path / "told")]
    subprocess.run(
        ["dbus-run-session", "--", "bash", "-c", queue, "bash", *arguments],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "GIO_USE_VFS": "local"},
        capture_output=True,
        check=True,
        timeout=100,
    )
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(cache.rglob("*.png"))) == 5


def test_beside_the_pictures(mount: Mount, tmp_path: Path, cache: Path) -> None:
    fill(mount, tmp_path)
    assert process("thumbs", "--shared", mount.path).out.startswith("4 thumbnails of 2 pictures")
    mount.stop(drain=True)
    mount.start()
    made = sorted((mount.path / "Bücher & mehr" / ".sh_thumbnails" / "large").iterdir())
    # The name of the standard and that of Xfce. The store keeps the bytes once.
    assert len(made) == 2
    first, second = (path.read_bytes() for path in made)
    assert first == second
    assert not cache.exists()
    assert process("thumbs", "--shared", mount.path).out.startswith("0 thumbnails")
    mount.stop()


def test_a_mount_that_has_died(mount: Mount, tmp_path: Path, cache: Path) -> None:
    fill(mount, tmp_path)
    mount.crash()
    done = process("thumbs", mount.path)
    assert done.code == 12
    assert "the mount does not answer" in done.sentence()
