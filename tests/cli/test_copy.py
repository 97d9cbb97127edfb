"""`fsmount copy`: what it prints, its exit codes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.ingest import large
from fsmount.store.transfer.copying_objects import ObjectCopier
from tests.cli.commands import Cli
from tests.support.packs import flip
from tests.support.trees import make_pictures


@pytest.fixture(name="second")
def second_store(tmp_path: Path) -> Path:
    config.make(tmp_path / "second", Disk())
    return tmp_path / "second"


def test_stores_are_merged(
    cli: Cli, root: Path, source: Path, second: Path, tmp_path: Path
) -> None:
    cli("import", source, root)
    config.make(tmp_path / "third", Disk())
    (make_pictures(tmp_path / "more", 5)[0]).unlink()
    cli("import", f"{tmp_path / 'more'}/", tmp_path / "third")
    done = cli("copy", root, tmp_path / "third", second, "--json").json()
    # The pictures 01 and 02 are equal in both.
    assert (done["files"], done["skipped"], done["problems"]) == (7, 0, [])
    assert 5 <= done["objects"] <= 7
    words = cli("copy", root, tmp_path / "third", second)
    assert (words.code, words.out) == (0, "0 files copied (0 bytes), 7 existed already\n")
    assert cli("verify", "--one-way", source, second).out == "3/3 identical\n"
    assert cli("check", "--full", second).code == 0


def test_patterns_and_a_folder(cli: Cli, root: Path, source: Path, second: Path) -> None:
    cli("import", source, root)
    done = cli("copy", "--into", "old/2023", "--exclude", "00.png", root, second, "-v")
    assert done.out.splitlines()[:-1] == ["old/2023/in/01.png", "old/2023/in/02.png"]
    assert cli("ls", second, "old/2023/in").out.count(".png") == 2


def test_times(cli: Cli, root: Path, source: Path, second: Path) -> None:
    """Only the folders of the chosen files come along."""
    (source / "a").mkdir()
    (source / "00.png").rename(source / "a" / "2024-03-01T10:00:00.png")
    (source / "b").mkdir()
    (source / "01.png").rename(source / "b" / "2023-03-01T10:00:00.png")
    cli("import", source, root)
    assert cli("copy", "--until", "2024-03", "--since", "2024", root, second).code == 2
    done = cli("copy", "--until", "2024-03", "--since", "2024-01", root, second, "--json").json()
    assert (done["files"], done["problems"]) == (1, [])
    assert cli("ls", second, "in").out.split()[-1] == "a"
    assert cli("copy", "--changed", "99%", root, second, "--json").json()["problems"] == []
    assert cli("check", "--full", second).code == 0


def test_a_name_that_is_taken(cli: Cli, root: Path, source: Path, second: Path) -> None:
    cli("import", source, root)
    (source / "01.png").write_bytes(b"other")
    cli("import", source, second)
    done = cli("copy", root, second)
    assert done.code == 3
    assert done.out == "0 files copied (0 bytes), 2 existed already\n"
    assert done.err.startswith("1 problem:\n  in/01.png: the target has something else")


def test_refusals(cli: Cli, root: Path, tmp_path: Path) -> None:
    assert cli("copy", root).code == 2
    assert cli("copy", tmp_path / "nothing", root).code == 10
    assert cli("copy", root, tmp_path / "nothing").code == 10
    assert "is the store itself" in cli("copy", root, root).sentence()


def test_every_new_file_is_rebuilt(
    cli: Cli, root: Path, source: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "large").write_bytes(b"x" * 9000)
    monkeypatch.setattr(large, "KEEP_BYTES", 5000)
    cli("import", source, root)
    assert cli("copy", "--check", "--exclude", "02.png", root, second).code == 0
    append = ObjectCopier._append

    async def spoilt(self: ObjectCopier, *args: Any) -> int:
        """Another program writes over the newest entry after it was compared."""
        number = await append(self, *args)
        place = self._target.writer.place(number)
        found.append((Path(place.pack), place.offset + place.length - 20))
        return number

    found: list[tuple[Path, int]] = []
    commit = ObjectCopier.commit

    async def committed(self: ObjectCopier, rows: Callable[[], None]) -> None:
        await commit(self, rows)
        while found:
            flip(*found.pop())

    monkeypatch.setattr(ObjectCopier, "_append", spoilt)
    monkeypatch.setattr(ObjectCopier, "commit", committed)
    done = cli("copy", "--check", root, second)
    assert done.code == 3
    assert done.err.startswith("1 problem:\n  in/02.png: ")
