"""fsmount thumbs: what it prints, what it accepts, and how it fails. The mount is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.cli.test_mountpoints import pretend


@pytest.fixture(name="place")
def mounted_folder(
    tmp_path: Path, root: Path, source: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the files of the store that counts as its mountpoint."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (source / "notes.txt").write_text("a note")
    cli("import", source, root)
    place = pretend(tmp_path, tmp_path / "mnt", root, monkeypatch)
    cli("export", root, place)
    return place


def test_the_result(cli: Cli, place: Path, root: Path) -> None:
    made = "6 thumbnails of 3 pictures made, 0 pictures had them already\n"
    assert (cli("thumbs", place).out, cli("thumbs", place, "-q").out) == (made, "")
    # The store stands for its mount.
    assert cli("thumbs", root, "--json").json() == {
        "version": 1,
        "pictures": 0,
        "thumbnails": 0,
        "skipped": 3,
        "problems": [],
    }


def test_some_paths_and_sizes(cli: Cli, place: Path, tmp_path: Path) -> None:
    done = cli(
        "thumbs", "-v", place / "in" / "01.png", place / "in" / "00.png", "--size", "x-large"
    )
    assert (done.code, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == [
        "2 thumbnails of 2 pictures made, 0 pictures had them already",
        "in/00.png",
        "in/01.png",
    ]
    assert [path.name for path in (tmp_path / "cache" / "thumbnails").iterdir()] == ["x-large"]
    assert cli("thumbs", place / "in", "--size", "normal", "--size", "large").out.startswith("6 th")


def test_a_relative_path_and_a_link(
    cli: Cli, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(place / "in")
    monkeypatch.chdir(place)
    assert cli("thumbs", ".").code == 0
    assert cli("thumbs", "in", tmp_path / "link").out.endswith("3 pictures had them already\n")


def test_pictures_without_thumbnails(cli: Cli, place: Path, root: Path, source: Path) -> None:
    (source / "broken.png").write_bytes(b"no picture")
    cli("import", source, root)
    cli("export", root, place)
    done = cli("thumbs", place)
    assert done.code == 3
    assert done.out == "6 thumbnails of 3 pictures made, 0 pictures had them already\n"
    told, listed = done.err.splitlines()
    assert told == "1 picture without thumbnails:"
    assert listed.startswith("  in/broken.png: it is no picture that can be read (")
    problems = cli("thumbs", place, "--json").json()["problems"]
    assert problems == [
        ["in/broken.png", "it is no picture that can be read (noted by an earlier run)"]
    ]


def test_beside_the_pictures(
    cli: Cli, place: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("thumbs", "--shared", place).out.startswith("6 thumbnails")
    assert {path.name for path in (place / "in" / ".sh_thumbnails").iterdir()} == {
        "normal",
        "large",
    }
    assert not (tmp_path / "cache").exists()
    # They are no pictures of a run.
    cli("import", f"{place}/", root)
    assert cli("stats", root, "--json").json()["files"] > 10
    runs = cli("runs", root, "--json").json()["runs"]
    assert sum(run["pictures"] for run in runs) == 3
    table = (tmp_path / "table").read_text()
    (tmp_path / "table").write_text(table.replace(f"{place} rw,", f"{place} ro,"))
    done = cli("thumbs", "--shared", place)
    assert (done.code, done.sentence()) == (
        1,
        f"{place} is mounted read-only, and --shared writes into the store",
    )


@pytest.mark.parametrize("name", ["", "store", "in/none.png"])
def test_what_is_not_mounted(cli: Cli, place: Path, root: Path, tmp_path: Path, name: str) -> None:
    if name == "in/none.png":
        done = cli("thumbs", place / name)
        assert (done.code, done.sentence()) == (1, f"there is no {name!r} in {root}")
        return
    (tmp_path / "table").write_text("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    done = cli("thumbs", tmp_path / name)
    assert done.code == 12
    if name:
        assert done.sentence().endswith(f"; mount it first: fsmount mount {root} DIR")
    else:
        assert "no store is mounted there" in done.sentence()


def test_two_mounts(
    cli: Cli, place: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "table").open("a") as table:
        table.write(f"91 20 0:51 / {tmp_path}/two rw,nosuid - fuse.fsmount {root} rw,user_id=0\n")
    (tmp_path / "two").mkdir()
    done = cli("thumbs", root)
    assert done.code == 12
    assert f"it is mounted at {place}, {tmp_path}/two; name one of these" in done.sentence()
    done = cli("thumbs", place, tmp_path / "two")
    assert (done.code, done.sentence()) == (
        2,
        "the paths lie in different mounts; name paths of one",
    )


def test_the_mount_of_something_else(
    cli: Cli, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pretend(tmp_path, tmp_path / "mnt", source, monkeypatch)
    done = cli("thumbs", place)
    assert done.code == 10
    assert "and that is not a store" in done.sentence()
