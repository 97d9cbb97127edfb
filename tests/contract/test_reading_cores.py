"""Check, export and verify use more cores, in virtual time (`tests.bench.reading`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.ours import fsmount
from tests.bench.reading import COMMANDS, believed, virtual
from tests.support.frames import png, screens

# 16 groups of 16 files. The least speed-up by the number of cores, a little below what is reached.
FILES = 256
FLOORS = {2: 1.9, 4: 3.7, 8: 7.2, 16: 13.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and the folder of its files."""
    scratch = tmp_path_factory.mktemp("reading")
    store, source = scratch / "store", scratch / "desk"
    source.mkdir()
    for number, frame in enumerate(screens(FILES, height=48, width=64)):
        (source / f"{number:03}.png").write_bytes(png(frame))
    fsmount("init", store)
    fsmount("import", f"{source}/", store)
    return store, source


@pytest.mark.parametrize("what", COMMANDS)
def test_more_cores_are_faster(folders: tuple[Path, Path], what: str) -> None:
    alone = virtual(what, *folders, 1)
    found = {cores: alone / virtual(what, *folders, cores) for cores in FLOORS}
    assert all(found[cores] >= floor for cores, floor in FLOORS.items()), found
    assert virtual(what, *folders, 8) == pytest.approx(alone / found[8])


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_that_believes_in_cores_has_costs(folders: tuple[Path, Path], what: str) -> None:
    assert min(believed(what, *folders, 3)) > 0
