"""Verify finds and names every difference between a folder and a store, or a mount."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.store.store import open_read_store
from fsmount.store.transfer.tree import target_of
from fsmount.store.transfer.verifying import FolderCounterpart, StoreCounterpart, Verifier
from tests.store.transfer.test_exporting import damage
from tests.support.legacies import convert, minutes
from tests.support.trees import export_from, import_into, make_pictures

pytestmark = pytest.mark.usefixtures("inline_archives")


async def verify(root: Path, *sources: str | Path) -> Verifier:
    opened = open_read_store(root)
    try:
        async with opened.running(count=2) as store:
            verifier = Verifier(StoreCounterpart(store), lambda files, count: None)
            await verifier.verify([(Path(source), target_of(str(source))) for source in sources])
            return verifier
    finally:
        opened.close()


async def test_all_identical(root: Path, source: Path) -> None:
    await import_into(root, f"{source}/")
    found = await verify(root, f"{source}/")
    count = sum(not stat.S_ISDIR(path.lstat().st_mode) for path in source.rglob("*"))
    assert (found.summary.files, found.total, found.summary.problems) == (count, count, [])


def _other_bytes(source: Path) -> None:
    path = source / "grün.bin"
    when = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))


def _shorter_here(source: Path) -> None:
    os.truncate(source / "grün.bin", 100)


def _longer_here(source: Path) -> None:
    with (source / "grün.bin").open("ab") as file:
        file.write(b"more")


def _missing_here(source: Path) -> None:
    (source / "grün.bin").unlink()


def _folder_missing_here(source: Path) -> None:
    (source / "empty").rmdir()


def _missing_there(source: Path) -> None:
    (source / "new").touch()


def _folder_missing_there(source: Path) -> None:
    (source / "new").mkdir()


def _another_type(source: Path) -> None:
    (source / "zero").unlink()
    (source / "zero").symlink_to("grün.bin")


def _a_folder_now(source: Path) -> None:
    (source / "zero").unlink()
    (source / "zero").mkdir()


def _links_elsewhere(source: Path) -> None:
    (source / "link").unlink()
    (source / "link").symlink_to("zero")


@pytest.mark.parametrize(
    ("change", "name", "reason", "counted"),
    [
        (_other_bytes, "grün.bin", "other bytes in the store", (-1, 0)),
        (_shorter_here, "grün.bin", "longer in the store", (-1, 0)),
        (_longer_here, "grün.bin", "shorter in the store", (-1, 0)),
        (_missing_here, "grün.bin", "only in the store", (-1, 0)),
        (_folder_missing_here, "empty", "only in the store", (0, 0)),
        (_missing_there, "new", "not in the store", (0, 1)),
        (_folder_missing_there, "new", "no such folder in the store", (0, 0)),
        (_another_type, "zero", "another type of file in the store", (-1, 0)),
        (_a_folder_now, "zero", "no such folder in the store", (-1, -1)),
        (_links_elsewhere, "link", "another target or device in the store", (-1, 0)),
    ],
)
async def test_every_difference_is_found(
    root: Path,
    source: Path,
    change: Callable[[Path], None],
    name: str,
    reason: str,
    counted: tuple[int, int],
) -> None:
    await import_into(root, f"{source}/")
    whole = await verify(root, f"{source}/")
    change(source)
    found = await verify(root, f"{source}/")
    ((path, why),) = found.summary.problems
    assert (Path(path).name, why) == (name, reason)
    assert (found.summary.files - whole.summary.files, found.total - whole.total) == counted


async def test_differences_are_listed_in_the_order_of_the_paths(root: Path, source: Path) -> None:
    for number in range(40):
        (source / f"{number:02}.txt").write_text(f"{number}")
    await import_into(root, f"{source}/")
    for number in range(0, 40, 3):
        (source / f"{number:02}.txt").write_text("!" * len(f"{number}"))
    # A folder is no difference of a legacy folder, whatever its name.
    (source / "20.jxl").mkdir()
    found = await verify(root, f"{source}/")
    wanted = [
        (str(source / f"{number:02}.txt"), "other bytes in the store") for number in range(0, 40, 3)
    ]
    wanted.append((str(source / "20.jxl"), "no such folder in the store"))
    assert found.summary.problems == sorted(wanted)


async def test_what_cannot_be_read_differs(root: Path, source: Path) -> None:
    await import_into(root, f"{source}/")
    await damage(root, "grün.bin".encode())
    found = await verify(root, f"{source}/")
    ((path, why),) = found.summary.problems
    assert path == str(source / "grün.bin")
    assert "damaged" in why


async def test_several_sources(root: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    make_pictures(one, 2)
    two.mkdir()
    (two / "note").write_text("2")
    await import_into(root, f"{one}/", f"{two}/")
    both = await verify(root, f"{one}/", f"{two}/")
    assert (both.summary.files, both.total, both.summary.problems) == (3, 3, [])
    alone = await verify(root, f"{two}/")
    assert (alone.summary.files, alone.total) == (1, 3)
    assert [why for _, why in alone.summary.problems] == ["only in the store"] * 2
    elsewhere = await verify(root, two)
    assert dict(elsewhere.summary.problems) == {
        str(two): "no such folder in the store",
        str(two / "note"): "not in the store",
    }


async def compare(source: Path, folder: Path) -> Verifier:
    verifier = Verifier(FolderCounterpart(folder), lambda files, count: None)
    await verifier.verify([(source, b"")])
    return verifier


async def test_a_folder_as_a_mount_shows_it(root: Path, source: Path, tmp_path: Path) -> None:
    await import_into(root, f"{source}/")
    await export_from(root, tmp_path / "out")
    found = await compare(source, tmp_path / "out")
    assert found.summary.problems == []
    assert found.summary.files == found.total > 10
    (tmp_path / "out" / "grün.bin").write_bytes(b"other")
    (tmp_path / "out" / "zero").unlink()
    (tmp_path / "out" / "more").mkdir()
    (tmp_path / "out" / "more" / "file").touch()
    (tmp_path / "out" / "link").unlink()
    (tmp_path / "out" / "link").symlink_to("nothing")
    found = await compare(source, tmp_path / "out")
    assert {Path(path).name for path, _ in found.summary.problems} == {
        "grün.bin",
        "zero",
        "more",
        "file",
        "link",
    }


async def test_pictures_kept_as_differences(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "old"
    for stem, path in zip(minutes(4), make_pictures(source, 4), strict=True):
        path.rename(source / f"{stem}.png")
    before = await import_into(root, f"{source}/")
    links = convert(source)
    found = await verify(root, f"{source}/")
    assert (found.summary.files, found.total, found.summary.problems) == (4, 4, [])
    assert before.summary.files == 4
    links[2].write_bytes(links[1].read_bytes())
    links[1].unlink()
    found = await verify(root, f"{source}/")
    assert {Path(path).stem for path, _ in found.summary.problems} == {
        links[1].stem,
        links[2].stem,
    }
