"""The page beside a mount: what programs write into the mount appears on it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from fsmount.web import table
from tests.e2e.commands import well
from tests.e2e.mounts import missing
from tests.support.frames import png, screens
from tests.web.support import client

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


async def test_beside_a_mount(root: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsmount.cli.common.stores import store_to_read

    monkeypatch.setattr(table, "_FRESH_S", 0.0)
    pictures = [png(frame) for frame in screens(2)]
    name = "2026-03-12T09-0{}-00.png"
    well("mount", root, place)
    (place / name.format(0)).write_bytes(pictures[0])
    async with client(store_to_read(place)) as asking:
        day = f"/api/day/{datetime(2026, 3, 12).date()}"
        (first,) = (await asking.get(day)).json()["moments"]
        # It may be encoded or not: its bytes are the same.
        assert (await asking.get(f"/picture/{first[0]}/exact")).body == pictures[0]
        assert (await asking.get(f"/picture/{first[0]}/view")).status == 200
        (place / name.format(1)).write_bytes(pictures[1])
        found = (await asking.get(day)).json()["moments"]
        assert len(found) == 2
        assert (await asking.get(f"/picture/{found[1][0]}/exact")).body == pictures[1]
        # An unmount encodes what is left. The page goes on.
        well("umount", place)
        found = (await asking.get(day)).json()["moments"]
        assert all(row[1] for row in found)
        for number, picture in zip((row[0] for row in found), pictures, strict=True):
            assert (await asking.get(f"/picture/{number}/exact")).body == picture
            assert (await asking.get(f"/picture/{number}/view")).status == 200
        (root / "packs").rename(root / "hidden")
        lost = await asking.get(f"/picture/{found[0][0]}/view?w=960")
        assert lost.status == 500
        (root / "hidden").rename(root / "packs")
