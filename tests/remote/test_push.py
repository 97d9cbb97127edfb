"""Push and pull: what is sent, what comes back, what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fsmount.errors import (
    Damaged,
    InsideStore,
    NotPushed,
    PushOvertaken,
    PushUnsettled,
    RemoteMissing,
    StoreExists,
)
from fsmount.remote import index_pages
from fsmount.remote import push as push_module
from fsmount.remote.names import remote_names
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.push import push
from fsmount.remote.transport import transport_to
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.store import open_read_store
from tests.support.backups import MORE, WANTED, faults, shown
from tests.support.packs import flip
from tests.support.remotes import objects_of, pulled, pushed
from tests.support.repacking import always_pays, fill, run
from tests.support.trees import make_store


def test_there_and_back(filled: Path, url: str, tmp_path: Path) -> None:
    done = pushed(filled, url)
    assert (done.generation, done.files, done.is_new) == (1, len(WANTED), True)
    assert done.problems == []
    remote = transport_to(url)
    state = last_state(remote)
    assert state is not None
    assert damaged_parts(remote, state) == []
    back = tmp_path / "back"
    found = pulled(url, back)
    assert found.files == len(WANTED)
    assert shown(back) == WANTED
    assert faults(back) == []
    trio.run(fill, back, MORE)
    assert shown(back) == WANTED | MORE


def test_again_without_a_change(filled: Path, place: str) -> None:
    pushed(filled, place)
    before = objects_of(place)
    done = pushed(filled, place)
    assert (done.generation, done.is_new, done.sent_objects) == (1, False, 0)
    assert objects_of(place) == before


def test_one_more_picture(filled: Path, place: str, tmp_path: Path) -> None:
    pushed(filled, place)
    before = objects_of(place)
    name, data = next(iter(MORE.items()))
    with open_read_store(filled) as store:
        length = sum(length for length, _ in store.index.packs().values())
    trio.run(fill, filled, {name: data})
    with open_read_store(filled) as store:
        length = sum(each for each, _ in store.index.packs().values()) - length
    pushed(filled, place)
    after = objects_of(place)
    new = {each: data for each, data in after.items() if each not in before}
    index = sum(len(data) for each, data in new.items() if each.startswith("index/"))
    assert index < 32 << 10
    assert sum(map(len, new.values())) <= length + index + (64 << 10)
    assert {each: after[each] for each in before} == before
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | {name: data}


def test_the_memory_of_the_search_for_tiles_is_not_sent(
    filled: Path, place: str, tmp_path: Path
) -> None:
    pushed(filled, place)
    index = Index(filled / "index.sqlite", Disk())
    index.save_tiles("9x9x3:uint8", os.urandom(200_000))
    index.close()
    done = pushed(filled, place)
    # Only which pages are free is new.
    assert done.sent_bytes < 8 << 10
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED
    with open_read_store(tmp_path / "back") as store:
        assert store.index.known_tiles("9x9x3:uint8") == b""


def test_the_index_is_sent_as_a_whole_now_and_then(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_pages, "MOST_CHANGES", 3)
    listed = []
    for name, data in MORE.items():
        pushed(filled, place)
        trio.run(fill, filled, {name: data})
        state = last_state(transport_to(place))
        assert state is not None
        listed.append(len(state.index))
    pushed(filled, place)
    assert listed == [1, 2, 3, 1]
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


def test_large_files_and_packs_have_several_parts(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "FILE_PART", 1000)
    monkeypatch.setattr(push_module, "PACK_PART", 5000)
    pushed(filled, place)
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_a_pack_with_another_time(filled: Path, place: str) -> None:
    pushed(filled, place)
    state = last_state(transport_to(place))
    assert state is not None
    first = next(iter(state.packs))
    os.utime(filled / "packs" / first)
    done = pushed(filled, place)
    # Its bytes are the same: only the state is new.
    assert (done.sent_objects, done.generation) == (0, 2)


def when_copied(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object], times: int = 1) -> None:
    """Do something after each of the first copies of the index of a store."""
    left = [times]
    copy_to = Index.copy_to

    def copy(self: Index, path: Path) -> None:
        copy_to(self, path)
        if left[0]:
            left[0] -= 1
            do()

    monkeypatch.setattr(Index, "copy_to", copy)
    monkeypatch.setattr(push_module, "_REST_S", 0.0)


def test_a_repack_removes_packs_meanwhile(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_pays(monkeypatch)
    when_copied(monkeypatch, lambda: trio.run(run, filled))
    assert pushed(filled, place).problems == []
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED
    assert faults(tmp_path / "back") == []


def test_the_encoder_takes_a_staged_file_meanwhile(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_copied(monkeypatch, lambda: trio.run(fill, filled, MORE))
    done = pushed(filled, place)
    # The first state, with the staged file: it was held open.
    assert (done.files, done.problems) == (len(WANTED), [])
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_a_store_that_never_rests(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_pays(monkeypatch)
    pushed(filled, place)
    names = iter(range(100))

    def change() -> None:
        trio.run(run, filled)
        # The next copy of the index names a pack that the next repack removes.
        trio.run(fill, filled, {b"new %d" % next(names): os.urandom(3000)})

    change()
    monkeypatch.setattr(push_module, "_TRIES", 3)
    when_copied(monkeypatch, change, times=3)
    with pytest.raises(PushUnsettled, match="changes faster"):
        pushed(filled, place)
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_two_pushers(filled: Path, url: str, tmp_path: Path) -> None:
    remote = transport_to(url)

    class Slow:
        """Another push is complete before this one makes its state."""

        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, name: str, data: bytes) -> bool:
            if name.startswith("state/"):
                pushed(filled, url)
            return remote.put(name, data)

    with open_read_store(filled) as store, pytest.raises(PushOvertaken, match="push again"):
        push(store, Slow())  # type: ignore[arg-type]
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_a_lost_answer_to_the_state(filled: Path, place: str) -> None:
    remote = transport_to(place)

    class Lossy:
        """The first try made the state, and the second one finds it."""

        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, name: str, data: bytes) -> bool:
            made = remote.put(name, data)
            return made and not name.startswith("state/")

    with open_read_store(filled) as store:
        assert push(store, Lossy()).is_new  # type: ignore[arg-type]


def test_another_store_is_refused(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(filled, place)
    other = make_store(tmp_path / "other", monkeypatch)
    with pytest.raises(NotPushed, match="another store is there"):
        pushed(other, place)


def test_where_a_pull_is_refused(filled: Path, place: str, tmp_path: Path) -> None:
    with pytest.raises(NotPushed, match="no store was pushed there"):
        pulled(place, tmp_path / "back")
    pushed(filled, place)
    with pytest.raises(StoreExists):
        pulled(place, filled)
    with pytest.raises(InsideStore):
        pulled(place, filled / "inside")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_bytes(b"x")
    with pytest.raises(StoreExists):
        pulled(place, tmp_path / "full")
    assert sorted(os.listdir(tmp_path / "full")) == ["mine"]


def test_each_damaged_object_is_named(filled: Path, place: str, tmp_path: Path) -> None:
    pushed(filled, place)
    remote = transport_to(place)
    state = last_state(remote)
    assert state is not None
    for i, part in enumerate(state.parts()):
        path = tmp_path / "remote" / part.name
        whole = path.read_bytes()
        flip(path, part.length // 2)
        assert [what for what, _ in damaged_parts(remote, state)] == [f"{place}/{part.name}"]
        with pytest.raises(Damaged, match=part.sha256):
            pulled(place, tmp_path / f"back{i}")
        assert not (tmp_path / f"back{i}/fsmount.json").exists()
        path.unlink()
        with pytest.raises(RemoteMissing, match=part.sha256):
            pulled(place, tmp_path / f"back{i}")
        path.write_bytes(whole)
        # It goes on with what is whole.
        pulled(place, tmp_path / f"back{i}")
        assert shown(tmp_path / f"back{i}") == WANTED


def test_a_damaged_state_is_named(filled: Path, place: str, tmp_path: Path) -> None:
    pushed(filled, place)
    flip(tmp_path / "remote/state/000000000001", 40)
    with pytest.raises(Damaged, match="state/000000000001"):
        pulled(place, tmp_path / "back")


def test_damaged_objects_are_sent_again(filled: Path, place: str, tmp_path: Path) -> None:
    pushed(filled, place)
    remote = transport_to(place)
    state = last_state(remote)
    assert state is not None
    for part in state.parts():
        flip(tmp_path / "remote" / part.name, part.length // 2)
    (tmp_path / "remote" / state.parts()[0].name).unlink()
    pushed(filled, place, reread=True)
    after = last_state(remote)
    assert after is not None
    assert damaged_parts(remote, after) == []
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_damage_of_the_store_is_told(filled: Path, place: str, tmp_path: Path) -> None:
    flip(filled / "packs/00000001.zip", 500)
    done = pushed(filled, place)
    assert [what for what, _ in done.problems] == [str(filled / "packs/00000001.zip")]
    (filled / "raw" / os.listdir(filled / "raw")[0]).unlink()
    assert len(pushed(filled, place, reread=True).problems) == 2


def test_damage_that_came_later_does_not_replace_what_is_there(
    filled: Path, place: str, tmp_path: Path
) -> None:
    pushed(filled, place)
    pack = filled / "packs/00000001.zip"
    info = pack.stat()
    flip(pack, 500)
    os.utime(pack, ns=(info.st_atime_ns, info.st_mtime_ns))
    pushed(filled, place)
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED


def test_names_without_pictures(filled: Path, place: str) -> None:
    pushed(filled, place)
    with remote_names(transport_to(place)) as store:
        found = {path: node.size for path, node in store.index.walk() if node.object_id}
        staged = [store.staging.size(node.staged) for node in store.index.staged_inodes()
                  if node.staged is not None]  # fmt: skip
    assert found == {name: len(data) for name, data in WANTED.items() if name != b"staged"}
    assert staged == [len(WANTED[b"staged"])]
