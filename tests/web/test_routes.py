"""Answers about a store and about albums."""

from __future__ import annotations

import os
import shutil
from io import BytesIO
from pathlib import Path

import pytest
import trio
from PIL import Image

from fsmount.store.layout import Layout
from fsmount.web import routes, table
from fsmount.web.shares import Shares
from tests.support.frames import png, screens
from tests.support.packs import drop_parity
from tests.support.trees import import_into, make_store
from tests.web.support import Client, client

DAY = "2026-03-14"


@pytest.fixture(name="root")
async def a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with four pictures of a day, one of which equals another, and one of the next day."""
    root = make_store(tmp_path / "store", monkeypatch)
    source = tmp_path / "desk"
    source.mkdir()
    frames = screens(4)
    for minute, number in ((0, 0), (1, 1), (2, 1), (40, 3)):
        (source / f"{DAY}T09:{minute:02}:05.png").write_bytes(png(frames[number]))
    (source / "2026-03-15T23:59:59.png").write_bytes(png(screens(1, seed=5)[0]))
    (source / "notes.txt").write_text("no picture")
    await import_into(root, str(source))
    return root


async def moments(asking: Client) -> list[list[int]]:
    found = (await asking.get(f"/api/day/{DAY}")).json()
    assert found["folders"] == ["desk"]
    assert (found["before"], found["after"]) == (None, "2026-03-15")
    return list(found["moments"])


async def test_days(root: Path) -> None:
    async with client(root) as asking:
        about = (await asking.get("/api/about")).json()
        assert (about["store"], about["has_albums"]) == ("store", False)
        days = (await asking.get("/api/days")).json()["days"]
        assert [[day, pictures] for day, pictures, *_ in days] == [[DAY, 4], ["2026-03-15", 1]]
        rows = await moments(asking)
        assert [row[2] for row in rows] == [9 * 3600 + 60 * m + 5 for m in (0, 1, 2, 40)]
        assert [row[4] for row in rows][::2] == [1, 0], "an equal picture brings nothing"
        assert rows[1][1] == rows[2][1]
        shares = dict((await asking.get(f"/api/day/{DAY}/shares")).json()["shares"])
        assert shares[rows[0][1]] > 0.9
        assert (await asking.get("/api/day/2026-03-16")).json()["moments"] == []


async def test_the_calendar_waits_for_what_was_new(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(root) as asking:
        found = (await asking.get("/api/days")).json()
        assert found["read"] == 1
        assert [row[4] > 0.9 for row in found["days"]] == [True, True]
    shutil.rmtree(root.parent / "caches")
    monkeypatch.setattr(routes, "FEW", 0)
    going_on = trio.Event()

    async def filled(self: Shares, objects: list[int]) -> None:
        await going_on.wait()
        await self.read(objects)

    monkeypatch.setattr(Shares, "fill", filled)
    async with client(root) as asking:
        early = (await asking.get("/api/days")).json()
        assert (early["read"], [row[4] for row in early["days"]]) == (0, [None, None])
        going_on.set()
        with trio.fail_after(20):
            while (late := (await asking.get("/api/days")).json())["read"] < 1:
                await trio.sleep(0.01)
        assert late == found


async def test_a_new_picture_appears(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_FRESH_S", 0.0)
    async with client(root) as asking:
        assert len(await moments(asking)) == 4
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / f"{DAY}T10-00-00.png").write_bytes(png(screens(1, seed=9)[0]))
        await import_into(root, str(tmp_path / "more"))
        found = (await asking.get(f"/api/day/{DAY}")).json()
        assert len(found["moments"]) == 5
        assert found["folders"] == ["desk", "more"]


async def test_the_exact_file(root: Path, tmp_path: Path) -> None:
    async with client(root) as asking:
        for number, *_ in await moments(asking):
            about = (await asking.get(f"/api/picture/{number}")).json()
            found = await asking.get(f"/picture/{number}/exact")
            assert found.body == (tmp_path / about["path"]).read_bytes()
            assert found.headers["content-type"] == "image/png"
            assert found.headers["content-length"] == str(about["size"])
            assert "2026-03-14T09%3A" in found.headers["content-disposition"]


async def test_previews_and_changes(root: Path) -> None:
    async with client(root) as asking:
        first, second, third, _ = [row[0] for row in await moments(asking)]
        found = await asking.get(f"/picture/{first}/view?w=9999")
        assert found.headers["content-type"] == "image/jpeg"
        assert (found.headers["x-width"], found.headers["x-height"]) == ("150", "100")
        assert Image.open(BytesIO(found.body)).size == (150, 100)
        cut = await asking.get(f"/picture/{first}/view?w=320&box=10,20,50,30")
        assert Image.open(BytesIO(cut.body)).size == (50, 30)
        outside = await asking.get(f"/picture/{first}/view?w=320&box=999999,0,7,7")
        assert Image.open(BytesIO(outside.body)).size == (1, 7)
        boxes = (await asking.get(f"/api/picture/{second}/changes?before={first}")).json()
        assert boxes["rectangles"]
        boxes = (await asking.get(f"/api/picture/{third}/changes?before={second}")).json()
        assert boxes["rectangles"] == []
        about = (await asking.get(f"/api/picture/{second}")).json()
        assert about["before"] == first
        assert (about["day"], about["second"]) == (DAY, 9 * 3600 + 65)


async def test_figures(root: Path) -> None:
    async with client(root) as asking:
        habits = (await asking.get("/api/habits")).json()
        assert habits["days"] == 2
        # 2026-03-14 was a Saturday.
        assert habits["hours"][5][9] > 0
        assert habits["years"] == [2026]
        assert (await asking.get("/api/habits?year=2025")).json()["days"] == 0
        layouts = (await asking.get("/api/layouts")).json()
        assert layouts["looked_at"] > 0
        months = (await asking.get("/api/storage")).json()["months"]
        assert [row[:2] for row in months] == [["2026-03", 5]]
        health = (await asking.get("/api/health")).json()
        assert health["files"] == 6
        assert health["findings"] == []


async def test_damage_is_an_answer(root: Path) -> None:
    drop_parity(root)
    pack = next(Layout(root).packs.glob("*.zip"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 4 : len(data) // 4 * 3] = bytes(len(data) // 4 * 2)
    pack.write_bytes(data)
    async with client(root) as asking:
        broken = 0
        for number, *_ in await moments(asking):
            found = await asking.get(f"/picture/{number}/exact")
            if found.status == 500:
                broken += 1
                assert found.json()["damaged"]
                assert "check --full" in found.json()["error"]
                assert (await asking.get(f"/picture/{number}/view")).status in (200, 500)
        assert broken


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/day/2026-3-1", 400),
        ("/api/day/../../etc", 404),
        ("/api/day/20260314", 400),
        ("/api/picture/0", 404),
        ("/api/picture/99999999999999999999999", 400),
        ("/api/picture/-1", 400),
        ("/api/picture/1e3", 400),
        ("/picture/FIRST/view?w=-3", 400),
        ("/picture/FIRST/view?w=x", 400),
        ("/picture/FIRST/view?box=1,2,3", 400),
        ("/picture/FIRST/view?box=1,2,3,x", 400),
        ("/api/picture/FIRST/changes?before=x", 400),
        ("/api/habits?year=0", 400),
        ("/api/habits?year=99999", 400),
        ("/api/albums?at=..", 404),
        ("/static/../index.html", 404),
        ("/static/\0", 404),
        ("/etc/passwd", 404),
    ],
)
async def test_wrong_addresses(root: Path, path: str, status: int) -> None:
    async with client(root) as asking:
        first = str((await moments(asking))[0][0])
        assert (await asking.get(path.replace("FIRST", first))).status == status


async def test_names_of_any_bytes(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 <img src=x onerror=alert(1)>")
    folder.mkdir()
    (folder / os.fsdecode(b'\xff"\r\nset-cookie: a=b 2026-03-14T11-00-00.png')).write_bytes(
        png(screens(1, seed=8)[0])
    )
    await import_into(root, str(folder))
    async with client(root) as asking:
        found = await asking.get(f"/api/day/{DAY}")
        assert folder.name in found.json()["folders"]
        number = found.json()["moments"][-1][0]
        exact = await asking.get(f"/picture/{number}/exact")
        assert exact.status == 200
        assert "set-cookie" not in exact.headers
        assert exact.headers["content-disposition"].isascii()
