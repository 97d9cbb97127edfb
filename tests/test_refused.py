"""Names that a filesystem refuses: albums use other names for them, exports report the reason."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from fsmount import refused
from fsmount.album import document, files
from fsmount.album.files import AlbumPaths
from fsmount.album.tree import AlbumTree
from fsmount.cli import main
from fsmount.errors import FsmountError
from tests.support.albums import add, create, extract, verify
from tests.support.fat import make_fat, valid
from tests.support.photos import camera
from tests.support.trees import export_from, import_into, make_store

NAMES = [
    "trunc 18:40.txt",
    'all <>:"|?*\\ of them',
    "line\nbreak",
    "ends in a dot.",
    "ends in a space ",
    "...",
    "con.txt",
    "LPT1",
    "x" * 250 + ".txt",
    "x:" * 60,
    "caf\udce9.txt",
    "grün:.txt",
    ".hidden:",
    "a%3Ab",
    "a:b",
]


# Substitute names


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_other_names_are_taken_everywhere(name: str) -> None:
    found = refused.substitutes(os.fsencode(name))
    assert found
    assert len(set(found)) == len(found)
    for other in found:
        assert other != os.fsencode(name)
        assert valid(other.decode())
        assert len(other) <= 143
    assert found == refused.substitutes(os.fsencode(name))


def test_the_last_of_them_is_its_own() -> None:
    last = {refused.substitutes(os.fsencode(name))[-1] for name in NAMES}
    assert len(last) == len(NAMES)


def test_suffixes_stay() -> None:
    for other in refused.substitutes(b"trunc 18:40.jpg"):
        assert other.endswith(b".jpg")
    assert refused.substitutes(b"trunc 18:40.jpg")[0] == b"trunc 18%3A40.jpg"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a:b?c:", "has :, ? ("),
        ("a\nb", "has \\n ("),
        ("a.", "has a dot or space at its end ("),
        ("c\udce9", "has bytes that are not UTF-8 ("),
        ("con", "has the name of a device ("),
        ("x" * 200, "has 200 bytes ("),
    ],
    ids=ascii,
)
def test_what_is_wrong_is_said(name: str, words: str) -> None:
    error = OSError(errno.EINVAL, "Invalid argument")
    assert words in refused.reason(Path("fine") / name, error)
    assert refused.reason(Path(name), OSError(errno.EIO, "told so")) == "told so"
    assert refused.reason(Path("fine.txt"), error) == "Invalid argument"


def test_whether_case_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fat").mkdir()
    (tmp_path / "other").mkdir()
    make_fat(monkeypatch, tmp_path / "fat")
    assert refused.folds_case(tmp_path / "fat", ".scratch")
    assert not refused.folds_case(tmp_path / "other", ".scratch")
    assert not refused.folds_case(tmp_path / "none", ".scratch")
    assert os.listdir(tmp_path / "fat") == os.listdir(tmp_path / "other") == []


# Albums


def make_day(folder: Path) -> dict[str, bytes]:
    """Make a folder: two photos, one that does not decode, and other files with many names.

    Returns name -> bytes of the files that an album keeps unchanged.
    """
    folder.mkdir()
    (folder / "IMG_1.JPG").write_bytes(camera(1))
    (folder / "IMG_2.JPG").write_bytes(camera(2))
    kept = {name: os.fsencode(name) for name in (*NAMES, "Notes.txt", "NOTES.TXT", "plain.txt")}
    kept["trunc 18:40.jpg"] = camera(3)[:3000]
    for name, data in kept.items():
        (folder / name).write_bytes(data)
        os.utime(folder / name, ns=(5, 1_404_563_696_000_000_000))
    return kept


def is_kept(place: AlbumPaths, kept: dict[str, bytes]) -> None:
    """Check that the XML maps the name of each file to a name that FAT accepts."""
    contents = document.read(place.xml)
    others = {os.fsdecode(other.name): other for other in contents.others}
    assert others.keys() == kept.keys()
    stored = {os.fsdecode(document.stored_name(other)) for other in contents.others}
    assert {name.casefold() for name in stored} == {
        path.name.casefold() for path in place.files.iterdir()
    }
    assert len({name.casefold() for name in stored}) == len(kept)
    assert all(valid(name) for name in stored)
    for name, data in kept.items():
        assert files.other_path(place, contents, others[name]).read_bytes() == data
    assert others["plain.txt"].stored is None


async def comes_back(place: AlbumPaths, kept: dict[str, bytes], out: Path) -> None:
    """Check that `album extract` and a mount return the files under their original names."""
    assert (await verify(place)).problems == []
    found = await extract(place, out)
    assert (found.problems, found.skipped) == ([], 0)
    back = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {name: back.get(name) for name in kept} == kept
    assert (out / "plain.txt").stat().st_mtime_ns == 1_404_563_696_000_000_000
    tree = AlbumTree(place.xml, 1 << 20)
    names = {os.fsdecode(name) for name, _ in await tree.children(b"")}
    assert names == {*kept, "IMG_1.JPG", "IMG_2.JPG"}
    for name, data in kept.items():
        body = await tree.body(os.fsencode(name))
        assert await body.pread(0, 1 << 20) == data


async def test_an_album_on_fat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_day(tmp_path / "day")
    stick = tmp_path / "stick"
    stick.mkdir()
    with monkeypatch.context() as patch:
        make_fat(patch, stick)
        place, summary = await create(tmp_path / "day", stick)
        assert summary.problems == []
        assert [Path(path).name for path, _ in summary.unfit] == ["trunc 18:40.jpg"]
        is_kept(place, kept)
        await comes_back(place, kept, tmp_path / "out")
    # Another system reads the stick.
    is_kept(place, kept)
    await comes_back(place, kept, tmp_path / "out2")


async def test_an_album_on_fat_is_made_again_and_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make_day(tmp_path / "day")
    stick, more = tmp_path / "stick", tmp_path / "more"
    stick.mkdir()
    make_fat(monkeypatch, stick)
    await create(tmp_path / "day", stick)
    # A name that differs only in capital letters is the name of another file.
    (tmp_path / "day" / "plain.txt").rename(tmp_path / "day" / "PLAIN.TXT")
    del kept["plain.txt"]
    (tmp_path / "day" / "plain.txt").write_bytes(b"new")
    os.utime(tmp_path / "day" / "plain.txt", ns=(5, 1_404_563_696_000_000_000))
    kept |= {"PLAIN.TXT": b"plain.txt", "plain.txt": b"new"}
    place, summary = await create(tmp_path / "day", stick)
    assert summary.problems == []
    is_kept(place, kept)
    more.mkdir()
    for name in ("notes.txt", "Plain.Txt", "trunc 18%3A40.jpg", "trunc 18:40.JPG", "a:b:"):
        (more / name).write_bytes(b"more " + name.encode())
        kept[name] = b"more " + name.encode()
    summary = await add(place, more)
    assert summary.problems == []
    is_kept(place, kept)
    await comes_back(place, kept, tmp_path / "out")


async def test_an_album_where_all_names_are_taken_has_no_others(tmp_path: Path) -> None:
    kept = make_day(tmp_path / "day")
    place, _ = await create(tmp_path / "day", tmp_path / "out")
    assert all(other.stored is None for other in document.read(place.xml).others)
    assert {path.name for path in place.files.iterdir()} == set(kept)
    assert b"fsm:Stored" not in place.xml.read_bytes()


async def test_a_file_of_the_user_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    kept = make_day(tmp_path / "day")
    place = AlbumPaths(tmp_path / "out", "day")
    place.files.mkdir(parents=True)
    (place.files / "plain.txt").write_text("mine")
    await create(tmp_path / "day", tmp_path / "out")
    assert (place.files / "plain.txt").read_text() == "mine"
    found = await extract(place, tmp_path / "back")
    assert found.problems == []
    assert (tmp_path / "back" / "plain.txt").read_bytes() == kept["plain.txt"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.EACCES])
def test_what_cannot_be_kept_is_not_said_to_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    make_day(tmp_path / "day")
    (tmp_path / "day" / "caf\udce9.txt").unlink()
    real: Any = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if mode == "xb" and path.parent.name == "day.files" and path.suffix == ".jpg":
            raise OSError(code, os.strerror(code))
        return real(path, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SystemExit) as ended:
        main(["album", "create", str(tmp_path / "day"), "-o", str(tmp_path), "--box", "256"])
    _, err = capsys.readouterr()
    assert ended.value.code == 3
    kept, _, left_out = err.partition("left out:")
    assert "18:40.jpg" not in kept
    assert "stored as they are:" not in kept
    assert "day/trunc 18:40.jpg: " in left_out
    assert os.strerror(code) in left_out
    contents = document.read(tmp_path / "day.xml")
    assert b"trunc 18:40.jpg" not in [other.name for other in contents.others]


def test_what_is_to_be_left_out_is_not_said_to_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_day(tmp_path / "day")
    (tmp_path / "day" / "caf\udce9.txt").unlink()
    with pytest.raises(SystemExit):
        options = ["-o", str(tmp_path), "--box", "256", "--skip-others"]
        main(["album", "create", str(tmp_path / "day"), *options])
    out, err = capsys.readouterr()
    assert "stored as" not in out + err
    assert "trunc 18:40.jpg" in err.partition("files are in no album (--skip-others):")[2]


async def test_an_album_whose_own_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_day(tmp_path / "day 18:40")
    (tmp_path / "stick").mkdir()
    make_fat(monkeypatch, tmp_path / "stick")
    with pytest.raises(FsmountError, match=r"refuses this name, which has : \("):
        await create(tmp_path / "day 18:40", tmp_path / "stick")
    assert os.listdir(tmp_path / "stick") == []


async def test_extract_to_fat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_day(tmp_path / "day")
    place, _ = await create(tmp_path / "day", tmp_path / "out")
    stick = tmp_path / "stick"
    stick.mkdir()
    make_fat(monkeypatch, stick)
    found = await extract(place, stick)
    problems = {path.removeprefix(f"{stick}/"): why for path, why in found.problems}
    fine = {"con.txt", "LPT1", "x" * 250 + ".txt", "a%3Ab", "plain.txt"}
    assert problems.keys() == kept.keys() - fine - {"NOTES.TXT"} or problems.keys() == (
        kept.keys() - fine - {"Notes.txt"}
    )
    assert problems["trunc 18:40.jpg"].startswith("the filesystem there refuses this name")
    assert "other capitals" in (problems.get("Notes.txt") or problems["NOTES.TXT"])
    assert found.skipped == 0
    notes = ["NOTES.TXT" if "Notes.txt" in problems else "Notes.txt"]
    assert sorted(os.listdir(stick)) == sorted([*fine, *notes, "IMG_1.JPG", "IMG_2.JPG"])
    assert (stick / notes[0]).read_bytes() == kept[notes[0]]


# Export


async def test_export_to_fat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused files are listed with the reason. Other files are exported, and none is replaced."""
    source, stick = tmp_path / "in", tmp_path / "stick"
    source.mkdir()
    stick.mkdir()
    names = [*NAMES, "plain.txt", "Notes.txt", "NOTES.TXT", "notes.txt"]
    for name in names:
        (source / name).write_bytes(os.fsencode(name).ljust(300))
        os.utime(source / name, ns=(5, 5_000_000_000))
    (source / "fol:der").mkdir()
    (source / "fol:der" / "inside").write_text("inside")
    for folder in ("Sub", "sub"):
        (source / folder).mkdir()
        (source / folder / "same").write_text(folder)
    root = make_store(tmp_path / "store", monkeypatch)
    await import_into(root, f"{source}/")
    fine = {"con.txt", "LPT1", "x" * 250 + ".txt", "a%3Ab", "plain.txt", "NOTES.TXT"}
    clash = {"Notes.txt", "notes.txt", "sub/same"}
    expected = {*names, "fol:der", "fol:der/inside", "sub/same"} - fine
    for force in (False, True):
        with monkeypatch.context() as patch:
            make_fat(patch, stick)
            done = await export_from(root, stick, force=force)
        problems = {path.removeprefix(f"{stick}/"): why for path, why in done.summary.problems}
        assert problems.keys() == expected
        assert {name for name, why in problems.items() if why == refused.CLASH} == clash
        assert "this name, which has : (Invalid argument)" in problems["fol:der/inside"]
        assert all("refuses this name" in problems[name] for name in expected - clash)
        # Either of the two folders may have been made first.
        (folder,) = {path.name for path in stick.iterdir()} - fine
        assert folder in {"Sub", "sub"}
        for name in fine:
            assert (stick / name).read_bytes() == os.fsencode(name).ljust(300)
        assert (stick / folder / "same").read_text() == "Sub"


async def test_export_to_a_disk_without_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is exported. It loses set-user-ID, since it cannot be given to its owner."""
    source = tmp_path / "in"
    source.mkdir()
    (source / "run me").write_text("#!/bin/sh\n")
    (source / "run me").chmod(0o4755)
    root = make_store(tmp_path / "store", monkeypatch)
    await import_into(root, f"{source}/")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    done = await export_from(root, tmp_path / "out")
    assert ("run me", "owner: Operation not permitted") in done.summary.problems
    assert (tmp_path / "out" / "run me").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "out" / "run me").stat().st_mode & 0o7777 == 0o755
