"""`fsmount stats --by`, `--top` and `--chart`."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from fsmount.cli.common.chart import Series, bar_chart
from tests.cli.commands import Cli

SVG = "{http://www.w3.org/2000/svg}"


def bars(text: str) -> list[str]:
    """The tooltips of all bars of a chart."""
    found = ElementTree.fromstring(text).iter(f"{SVG}title")
    return [each.text or "" for each in found]


def dated(source: Path) -> None:
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(source / f"2024-0{number + 1}-05T10:00:00.png")


def test_tables_in_words(cli: Cli, root: Path, source: Path) -> None:
    dated(source)
    cli("import", source, root)
    plain = cli("stats", root).out
    text = cli("stats", root, "--by", "month", "--top", "2").out
    assert text.startswith(plain)
    lines = text[len(plain) :].splitlines()
    assert lines[1].split() == ["month", "pictures", "other", "bytes", "stored", "ratio"]
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["2024-01", "1", "0"],
        ["2024-02", "1", "0"],
        ["2024-03", "1", "0"],
    ]
    assert lines[5].startswith("forecast: ")
    assert lines[7] == "the most expensive pictures:"
    assert lines[9].endswith("  in/2024-01-05T10:00:00.png")
    assert lines[-1].endswith("  in")
    # The columns stand below each other.
    assert len({line.index("2024") for line in lines[2:5]}) == 1
    assert len({len(line) for line in lines[1:5]}) == 1
    only_top = cli("stats", root, "--top", "1").out
    assert "month" not in only_top.partition("the most")[0]


def test_tables_for_json(cli: Cli, root: Path, source: Path) -> None:
    dated(source)
    cli("import", source, root)
    found = cli("stats", root, "--by", "year", "--new", "--top", "1", "--json").json()
    assert found["files"] == 3
    (row,) = found["rows"]
    assert (row["year"], row["pictures"], row["files"]) == ("2024", 3, 3)
    assert row["ratio"] == round(row["bytes"] / row["stored_bytes"], 2)
    assert 1 < row["new_screens"] < 3
    assert found["forecast"]["days"] == 30
    assert [each["path"] for each in found["top_pictures"]] == ["in/2024-01-05T10:00:00.png"]
    assert [each["path"] for each in found["top_folders"]] == ["in"]
    assert "rows" not in cli("stats", root, "--json").json()


def test_a_chart(cli: Cli, root: Path, source: Path, tmp_path: Path) -> None:
    dated(source)
    odd = source / os.fsdecode(b"<&\xff\n>")
    odd.mkdir()
    (odd / "x.png").write_bytes((source / "2024-01-05T10:00:00.png").read_bytes())
    cli("import", f"{source}/", root, "--json")
    assert cli("stats", root, "--chart", tmp_path / "a.svg").code == 0
    tips = bars((tmp_path / "a.svg").read_text())
    # A panel of bytes and one of pictures; the odd picture was changed now.
    assert len(tips) == 2 * 4
    assert "2024-02: 1" in tips
    cli("stats", root, "--by", "folder", "--new", "--json", "--chart", tmp_path / "b.svg")
    assert len(bars((tmp_path / "b.svg").read_text())) == 3 * 2


def test_refusals(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("stats", root, "--by", "week").code == 2
    assert cli("stats", root, "--top", "-1").code == 2
    assert cli("stats", root, "--chart", tmp_path).code == 2
    assert cli("stats", root, "--chart", tmp_path / "no" / "x.svg").code == 1
    empty = cli("stats", root, "--by", "day", "--top", "3", "--chart", tmp_path / "x.svg")
    assert empty.code == 0
    assert bars((tmp_path / "x.svg").read_text()) == []


@given(st.lists(st.tuples(st.text(), st.floats(0, 1e18)), max_size=90), st.text())
def test_a_chart_is_well_formed(rows: list[tuple[str, float]], title: str) -> None:
    labels, values = [label for label, _ in rows], [value for _, value in rows]
    text = bar_chart(title, labels, [Series(title, values, str), Series("b", values, repr)])
    assert len(bars(text)) == 2 * len(rows)
    heights = [
        float(each.get("height", ""))
        for each in ElementTree.fromstring(text).iter(f"{SVG}rect")
        if each.find(f"{SVG}title") is not None
    ]
    assert all(0 <= height <= 150 for height in heights)
    assert not any(values) or max(heights) == 150
