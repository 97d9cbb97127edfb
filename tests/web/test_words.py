"""Search and words of a picture, as the page asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.layout import Layout
from fsmount.web.words import as_typed
from tests.web import demo
from tests.web.support import client


@pytest.fixture(name="root", scope="module")
def a_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("words") / "store"
    demo.make(root, step_min=240)
    return root


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("riv", "riv*"),
        ("the riv", "the riv*"),
        ("river ", "river "),
        ('"the riv', '"the riv'),
        ('"the river"', '"the river"'),
        ("riv*", "riv*"),
        ("r", "r"),
        ("", ""),
        ("!", "!"),
    ],
)
def test_the_last_word_may_go_on(query: str, asked: str) -> None:
    assert as_typed(query) == asked


async def test_hits_and_words_agree(root: Path) -> None:
    async with client(root) as asking:
        found = (await asking.get("/api/search?q=Fil")).json()
        assert found["has_words"] and found["wrong"] is None
        (hit,) = found["hits"]
        assert "Files" in hit["snippet"]
        assert hit["day"] == "2026-03-12"
        assert hit["first_second"] <= hit["second"]
        words = (await asking.get(f"/api/picture/{hit['id']}/words")).json()
        assert words["read"]
        assert hit["places"][0] in [word[1:] for word in words["words"] if word[0] == "Files"]
        about = (await asking.get(f"/api/picture/{hit['id']}")).json()
        assert about["object"] == hit["object"]
        nothing = (await asking.get("/api/search?q=zzzzzzzz")).json()
        assert nothing["hits"] == []


async def test_wrong_queries_are_told(root: Path) -> None:
    async with client(root) as asking:
        found = (await asking.get("/api/search?q=%22%21%3F")).json()
        assert found["wrong"]
        assert found["hits"] == []
        assert (await asking.get(f"/api/search?q={'a' * 201}")).status == 400
        for hostile in ("%27%3B+DROP+TABLE+words", "%00", "%22+OR+1%3D1", "*+*+*", "%F0%9F%98%80"):
            answer = await asking.get(f"/api/search?q={hostile}")
            assert answer.status == 200, hostile


async def test_a_picture_in_the_trash_is_no_hit(root: Path) -> None:
    index = Index(Layout(root).index, Disk())
    folder = index.lookup(ROOT, b"screen")
    assert folder is not None
    names = [name for _, name, _ in index.children(folder.ino)]
    index.put_in_trash([(folder.ino, name, b"screen/" + name) for name in names], 10**18)
    index.close()
    async with client(root) as asking:
        found = await asking.get("/api/search?q=Files")
        assert found.status == 200
        assert found.json()["hits"] == []


async def test_without_a_database(root: Path) -> None:
    for path in Layout(root).root.glob("text*"):
        path.unlink()
    async with client(root) as asking:
        assert not (await asking.get("/api/search?q=Files")).json()["has_words"]
