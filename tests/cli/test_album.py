"""`fsmount album` on the command line: what it prints and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fsmount.album.files import paths_of
from fsmount.cli import main
from tests.support.photos import camera, folder


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
    # The album already has a file of this name with another time.
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
        (["create", "{in}", "-o", "{out}", "--qscale", "16"], 2, "--qscale is for"),
        (["create", "{in}", "-o", "{out}", "--codec", "prores", "--crf", "9"], 2, "--crf for"),
        (["create", "{in}/IMG_0.JPG", "-o", "{out}"], 2, "not a folder"),
        (["create", "{in}/none", "-o", "{out}"], 1, "No such file"),
        (["create", "{in}", "{in}/../in", "-o", "{out}"], 2, "two folders"),
        (["verify", "{in}/none.xml"], 10, "not a photo album"),
        (["info", "{in}/IMG_0.JPG"], 10, "not a photo album"),
        (["append", "{in}/none.xml", "{in}"], 10, "not a photo album"),
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
    assert paths_of(tmp_path / "2014-07 a.b").xml == tmp_path / "2014-07 a.b.xml"


def test_info_lists_a_file_stored_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(tmp_path / "a", 1)
    (source / "notes:1.txt").write_text("notes")
    taken = tmp_path / "out" / "a.files"
    taken.mkdir(parents=True)
    (taken / "notes:1.txt").write_text("not of the album")
    assert run(capsys, "album", "create", source, "-o", tmp_path / "out")[0] == 0
    code, found, _ = run(capsys, "album", "info", "--photos", "--json", tmp_path / "out" / "a.xml")
    assert code == 0
    (other,) = found["other_files"]
    assert (other["name"], other["stored"]) == ("notes:1.txt", "notes%3A1.txt")
