"""States that a prune removes while they are read in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fsmount.errors import (
    FsmountError,
    RemoteMissing,
    StatePruned,
)
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote.names import remote_names
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.pruning import prune
from fsmount.remote.pull import pull
from fsmount.remote.reading import remote_stores
from fsmount.remote.transport import transport_to
from tests.support.backups import MORE, WANTED
from tests.support.encoding import ino_of
from tests.support.remotes import (
    pushed,
    read_file,
    shown_in_place,
)
from tests.support.repacking import fill

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture(name="overtaken")
def _overtaken(filled: Path, tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """A URL, and a function that pushes a newer state there and prunes the older one."""
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)

    def overtake() -> None:
        trio.run(fill, filled, MORE)
        pushed(filled, url)
        remote = transport_to(url)
        assert prune(remote, remote, keep_states=1).objects > 0

    return url, overtake


def test_a_state_that_a_prune_removes_below_a_mount(
    overtaken: tuple[str, Callable[[], None]], caches: Path
) -> None:
    url, overtake = overtaken

    async def read() -> None:
        async with remote_stores(url, caches, budget=1 << 20) as stores:
            filesystem = StoreFilesystem(stores[""], None)
            await trio.to_thread.run_sync(overtake)
            errors = []
            for name in WANTED:
                try:
                    data = await read_file(filesystem, ino_of(stores[""], name))
                    assert data == WANTED[name]
                except FsmountError as error:
                    assert isinstance(error, StatePruned), error
                    errors.append(str(error))
            # What both states have can be read; for the rest, the remedy is another mount.
            assert 0 < len(errors) < len(WANTED)
            assert all("unmount and mount again" in error for error in errors)
            assert not any("--reread" in error for error in errors)

    trio.run(read)
    assert shown_in_place(url, caches) == WANTED | MORE


def test_an_object_that_is_missing_from_the_newest_state(
    filled: Path, tmp_path: Path, caches: Path
) -> None:
    url = f"file://{tmp_path}/remote"
    pushed(filled, url)
    shutil.rmtree(tmp_path / "remote/packs")
    with pytest.raises(RemoteMissing, match="--reread"):
        shown_in_place(url, caches)


def test_a_state_that_a_prune_removes_during_a_command(
    overtaken: tuple[str, Callable[[], None]], tmp_path: Path, caches: Path
) -> None:
    url, overtake = overtaken
    state = last_state(transport_to(url))
    assert state is not None
    encoded = state.encoded()

    class Late:
        """A transport with a prune between the state and all else."""

        def __init__(self) -> None:
            self.url = url
            self._remote = transport_to(url)

        def __getattr__(self, name: str) -> object:
            return getattr(self._remote, name)

        def list(self, folder: str) -> list[tuple[str, int]]:
            return [("state/000000000001", 1)]

        def get(self, name: str) -> bytes:
            return encoded if name.startswith("state/") else self._remote.get(name)

    overtake()
    late: Any = Late()
    with pytest.raises(StatePruned, match="run the command again"):
        pull(late, tmp_path / "back")
    with pytest.raises(StatePruned):
        damaged_parts(late, state)
    with pytest.raises(StatePruned):
        shown_in_place(url, caches, connect=lambda url: late)
    # The newer state names the index of the older one, too, so that is still there.
    with remote_names(late) as store:
        assert {path for path, node in store.index.walk() if node.size} == set(WANTED)
    shutil.rmtree(tmp_path / "remote/index")
    with pytest.raises(StatePruned), remote_names(late):
        pass
