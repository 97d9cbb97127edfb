"""JPEGs on a real mount, with the extra `jpeg` and on a machine without it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mounts import Mount, missing
from tests.support.paths import DATA
from tests.support.photos import camera

pytest.importorskip("imagecodecs")
pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

FRAMES = sorted((DATA / "desk").glob("*.png"))[:3]


@pytest.fixture(name="mount")
def a_mount(tmp_path: Path) -> Iterator[Mount]:
    mount = Mount(tmp_path)
    yield mount
    mount.clean()


def kind(mount: Mount, name: str) -> bytes:
    return os.getxattr(mount.path / name, "user.fsmount.kind")


def test_a_jpeg_comes_back_and_without_the_extra_it_is_an_error_that_names_it(
    mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {frame.name: frame.read_bytes() for frame in FRAMES}
    files |= {f"{number}.jpg": camera(number) for number in range(3)}
    mount.start()
    for name, data in files.items():
        (mount.path / name).write_bytes(data)
    mount.stop(drain=True)
    mount.start()
    for name, data in files.items():
        assert (mount.path / name).read_bytes() == data
        assert (mount.path / name).stat().st_size == len(data)
    for number in range(3):
        name = f"{number}.jpg"
        assert kind(mount, name) == b"jpeg"
        stored = int(os.getxattr(mount.path / name, "user.fsmount.stored_bytes"))
        assert stored < 0.9 * len(files[name])
    # As an editor that changes a few bytes in place.
    with (mount.path / "2.jpg").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\xff\xd9behind")
    files["2.jpg"] = files["2.jpg"] + b"behind"
    mount.stop(drain=True)

    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "imagecodecs.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    mount.log.write_bytes(b"")
    mount.start()
    assert sorted(os.listdir(mount.path)) == sorted(files)
    for name, data in files.items():
        assert (mount.path / name).stat().st_size == len(data)
        if name.endswith(".png"):
            assert (mount.path / name).read_bytes() == data
            continue
        with pytest.raises(OSError) as error:
            (mount.path / name).read_bytes()
        assert error.value.errno == errno.EIO
    (mount.path / "new.jpg").write_bytes(files["0.jpg"] + b"other")
    mount.stop(drain=True)
    said = mount.log.read_text()
    assert said.count("pip install 'fsmount[jpeg]'") >= 3
    assert "Traceback" not in said

    monkeypatch.delenv("PYTHONPATH")
    mount.start()
    assert kind(mount, "new.jpg") == b"raw"
    for name, data in {**files, "new.jpg": files["0.jpg"] + b"other"}.items():
        assert (mount.path / name).read_bytes() == data
    mount.stop()
