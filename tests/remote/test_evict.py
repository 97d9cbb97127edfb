"""Packs that are at a URL only: right bytes, no lost bytes, and a way back."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from fsmount.errors import (
    CacheFailed,
    Damaged,
    DiskFull,
    FormatUnsupported,
    FsmountError,
    NotPushed,
    PacksElsewhere,
    RemoteConflict,
    RemoteFailed,
)
from fsmount.remote.evict import evict, renew_record
from fsmount.remote.objects import last_state
from fsmount.remote.opening import Unlock, open_remote
from fsmount.remote.pruning import prune
from fsmount.remote.reading import for_reading
from fsmount.remote.transport import Transport, transport_to
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.elsewhere import recorded
from fsmount.store.index import ROOT
from fsmount.store.layout import Layout
from fsmount.store.packs.entries import DICTIONARY
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.recovery.repair import rebuild_index
from fsmount.store.store import open_read_store, open_store
from fsmount.store.writable_store import WritableStore
from tests.support.backups import FILES, LARGE, MORE, WANTED, faults, shown
from tests.support.encoding import forget_caches, ino_of
from tests.support.evicting import (
    evicted,
    lost_network,
    packs_here,
    returned,
    shown_partly,
    taken,
)
from tests.support.frames import FlakyDisk, png, screens
from tests.support.packs import flip
from tests.support.remotes import (
    counted,
    new_identity,
    opened_to_push,
    public_key,
    pulled,
    push_through,
    pushed,
)
from tests.support.repacking import fill, noise
from tests.support.trees import make_store


@pytest.fixture(name="away")
def store_with_packs_away(filled: Path, place: str) -> Path:
    """A store all sealed packs of which are at `place` only."""
    pushed(filled, place)
    assert evicted(filled, place).packs > 1
    return filled


def contents(root: Path) -> dict[str, bytes]:
    """The files in packs/ of a store, without parity and copies of the index."""
    return {path.name: path.read_bytes() for path in (root / "packs").glob("*.zip")}


def test_all_bytes_are_equal(filled: Path, url: str, caches: Path) -> None:
    before = contents(filled)
    pushed(filled, url)
    done = evicted(filled, url)
    assert done.packs == done.away_packs > 1
    assert len(packs_here(filled)) == 1
    gone = before.keys() - contents(filled).keys()
    assert done.bytes == done.away_bytes == sum(len(before[name]) for name in gone)
    assert shown_partly(filled, caches) == WANTED
    # A cache that holds hardly anything.
    assert shown_partly(filled, caches, budget=1) == WANTED
    assert taken(filled, caches, MORE) == MORE
    assert shown_partly(filled, caches) == WANTED | MORE
    pushed(filled, url)
    assert evicted(filled, url).packs > 0
    assert shown_partly(filled, caches) == WANTED | MORE
    returned(filled, url)
    assert shown(filled) == WANTED | MORE
    assert faults(filled) == []


def test_a_store_comes_back_as_it_was(filled: Path, place: str) -> None:
    pushed(filled, place)
    before, about = contents(filled), (filled / "fsmount.json").read_bytes()
    times = {path.name: path.stat().st_mtime_ns for path in (filled / "packs").glob("*.zip")}
    done = evicted(filled, place)
    assert contents(filled) != before
    assert returned(filled, place).packs == done.packs
    for name, data in contents(filled).items():
        assert data == before[name]
        if name != max(before):
            assert (filled / "packs" / name).stat().st_mtime_ns == times[name]
    assert (filled / "fsmount.json").read_bytes() == about
    assert not (filled / "elsewhere.json").exists()
    # The next push finds all as it was.
    assert pushed(filled, place).sent_objects <= 2


def test_no_more_than_is_asked_for_goes(filled: Path, place: str) -> None:
    pushed(filled, place)
    sizes = {n: Layout(filled).pack(n).stat().st_size for n in sorted(packs_here(filled))}
    first = min(sizes)
    # The directory of the open pack is not there while the store is open.
    keep = sum(sizes.values()) - 1000
    assert evicted(filled, place, keep=keep).packs == 1
    assert packs_here(filled) == sizes.keys() - {first}
    assert evicted(filled, place, keep=keep).packs == 0
    with open_store(filled, elsewhere=True) as store:
        done = evict(store, transport_to(place), keep=0, dry_run=True)
    assert (done.packs, packs_here(filled)) == (len(sizes) - 2, sizes.keys() - {first})


def test_what_was_not_pushed_stays(filled: Path, place: str, caches: Path) -> None:
    with pytest.raises(NotPushed):
        evicted(filled, place)
    pushed(filled, place)
    trio.run(fill, filled, noise(12))
    before = packs_here(filled)
    with open_read_store(filled) as store:
        sealed = [number for number, (_, is_sealed) in store.index.packs().items() if is_sealed]
    done = evicted(filled, place)
    # The pack that was open when it was pushed is there in part.
    assert 0 < done.packs < len(sealed)
    assert done.unpushed == len(sealed) - done.packs
    assert len(packs_here(filled)) == len(before) - done.packs
    assert shown_partly(filled, caches) == WANTED | noise(12)


def test_nobody_else_reads_the_record(away: Path, place: str) -> None:
    assert (away / "elsewhere.json").stat().st_mode & 0o077 == 0
    found = json.loads((away / "elsewhere.json").read_bytes())
    assert found["url"] == place
    assert config.read(away)["format"] == 3


# -- bytes that differ


def test_a_flipped_bit_at_the_url(filled: Path, place: str, tmp_path: Path) -> None:
    pushed(filled, place)
    before = contents(filled)
    damaged = sorted((tmp_path / "remote/packs").iterdir())
    for path in damaged:
        flip(path, 300)
    with pytest.raises(Damaged, match="push --reread"):
        evicted(filled, place)
    assert contents(filled) == before
    assert config.read(filled)["format"] == 2
    pushed(filled, place, reread=True)
    assert evicted(filled, place).packs == len(damaged)


def test_a_missing_object_at_the_url(filled: Path, place: str, tmp_path: Path) -> None:
    pushed(filled, place)
    before = contents(filled)
    for path in (tmp_path / "remote/packs").iterdir():
        path.unlink()
    with pytest.raises(FsmountError, match="missing"):
        evicted(filled, place)
    assert contents(filled) == before


@pytest.mark.parametrize("parity", [True, False])
def test_a_flipped_bit_here(filled: Path, place: str, parity: bool) -> None:
    """Damage since the push; and damage that was pushed, which only the parity here can mend."""
    pushed(filled, place)
    first = Layout(filled).pack(min(packs_here(filled)))
    if not parity:
        for path in (filled / "packs").glob("*.parity"):
            path.unlink()
    flip(first, 300)
    with pytest.raises(Damaged, match="Nothing of it was dropped"):
        evicted(filled, place)
    pushed(filled, place, reread=True)
    with pytest.raises(Damaged, match="Nothing of it was dropped"):
        evicted(filled, place)
    assert first.exists()


def test_a_flipped_bit_in_what_is_away(
    away: Path, place: str, caches: Path, tmp_path: Path
) -> None:
    good = {path: path.read_bytes() for path in (tmp_path / "remote/packs").iterdir()}
    for path in good:
        flip(path, 300)
    with pytest.raises(Damaged):
        shown_partly(away, caches)
    here = packs_here(away)
    with pytest.raises(Damaged):
        returned(away, place)
    assert packs_here(away) == here
    assert pushed(away, place, reread=True).problems
    for path, data in good.items():
        path.write_bytes(data)
    assert shown_partly(away, caches) == WANTED
    assert pushed(away, place, reread=True).problems == []
    returned(away, place)
    assert shown(away) == WANTED


def test_damage_here_is_not_blamed_on_the_server(away: Path, caches: Path) -> None:
    taken(away, caches, noise(1))
    (number,) = packs_here(away)
    path = Layout(away).pack(number)
    for parity in (away / "packs").glob("*.parity"):
        parity.unlink()
    data = bytearray(path.read_bytes())
    at = data.index(noise(1)[b"note000"][:40])
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged) as caught:
        shown_partly(away, caches)
    assert "server" not in str(caught.value)


# -- without a network


def rest_on_what_is_here(store: WritableStore, names: Iterable[bytes]) -> None:
    """Assert that pictures need nothing that is elsewhere, and that most are deltas."""
    kinds = []
    for name in names:
        row = store.index.object(store.index.inode(ino_of(store, name)).object_id or 0)
        kinds.append(row.kind)
        for number in (row.id, *row.needs, *row.layer):
            assert store.index.object(number).pack not in store.away.packs
    assert set(kinds) <= {"key", "delta"}
    assert kinds.count("delta") >= len(kinds) - 2


def test_pictures_are_taken_without_a_network(away: Path, caches: Path) -> None:
    """New files rest on nothing that is elsewhere, also if the store has the same bytes there."""
    files = MORE | {b"again " + name: data for name, data in FILES.items()}

    def look(store: WritableStore) -> None:
        rest_on_what_is_here(store, files)

    assert taken(away, caches, files, connect=lost_network, look=look) == files
    with pytest.raises(RemoteFailed, match="no network"):
        shown_partly(away, caches, connect=lost_network)
    assert shown_partly(away, caches) == WANTED | files


def test_what_was_read_once_needs_no_network(away: Path, caches: Path) -> None:
    assert shown_partly(away, caches) == WANTED
    assert shown_partly(away, caches, connect=lost_network) == WANTED
    for path in [caches, *caches.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_is_asked_before_somebody_reads(away: Path, caches: Path) -> None:
    calls: list[tuple[str, str]] = []
    assert taken(away, caches, MORE, connect=counted(calls)) == MORE
    assert calls == []
    assert shown_partly(away, caches, connect=counted(calls)) == WANTED | MORE
    assert {name for call, name in calls if call == "list"} == set()
    assert len(calls) == len(set(calls))


def test_a_cache_that_cannot_be_used(away: Path, tmp_path: Path) -> None:
    """Pictures are taken; what is elsewhere cannot be read."""
    (tmp_path / "file").write_bytes(b"")
    assert taken(away, tmp_path / "file" / "caches", MORE) == MORE
    with pytest.raises(CacheFailed):
        shown_partly(away, tmp_path / "file" / "caches")


def test_known_tiles_of_what_went_are_not_used(
    root: Path, place: str, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner saved the tiles of pictures; the next ones are like those."""
    monkeypatch.setattr("fsmount.store.packs.pack.SEAL_BYTES", 1)
    frames = screens(8, height=64)
    first = {b"%d.png" % i: png(frame) for i, frame in enumerate(frames[:4])}
    later = {b"%d.png" % i: png(frame) for i, frame in enumerate(frames[4:], 4)}
    trio.run(fill, root, first)
    pushed(root, place)
    # The first pack, which all rest on, goes; those behind it stay.
    sizes = [Layout(root).pack(n).stat().st_size for n in sorted(packs_here(root))]
    assert evicted(root, place, keep=sum(sizes) - 1000).packs == 1

    def look(store: WritableStore) -> None:
        rest_on_what_is_here(store, later)

    assert taken(root, caches, later, connect=lost_network, look=look) == later
    assert shown_partly(root, caches) == first | later


def test_a_dictionary_that_went_is_not_used(
    root: Path, place: str, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmount.store.packs.pack.SEAL_BYTES", 1)
    monkeypatch.setattr("fsmount.store.frames.known_tiles._FIRST_DUE", 2)
    monkeypatch.setattr("fsmount.store.ingest.dictionaries._MOST_SHARE", 9)
    frames = screens(16, height=64)
    first = {b"%02d.png" % i: png(frame) for i, frame in enumerate(frames[:8])}
    later = {b"%02d.png" % i: png(frame) for i, frame in enumerate(frames[8:], 8)}
    trio.run(fill, root, first)
    pushed(root, place)
    with open_read_store(root) as store:
        rows = list(store.index.all_objects())
    old = {row.id for row in rows if row.kind == DICTIONARY}
    assert any(old & set(row.needs) for row in rows)
    evicted(root, place)
    assert packs_here(root).isdisjoint(row.pack for row in rows if row.id in old)

    def look(store: WritableStore) -> None:
        rest_on_what_is_here(store, later)

    assert taken(root, caches, later, connect=lost_network, look=look) == later
    assert shown_partly(root, caches) == first | later


# -- pushes


def test_pushes_go_on(away: Path, place: str, caches: Path, tmp_path: Path) -> None:
    taken(away, caches, MORE, connect=lost_network)
    done = pushed(away, place)
    assert (done.problems, done.is_new) == ([], True)
    remote = transport_to(place)
    prune(remote, remote, keep_states=1)
    assert shown_partly(away, caches / "new") == WANTED | MORE
    assert pushed(away, place, reread=True).problems == []
    prune(remote, remote, keep_states=1)
    pulled(place, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE
    assert faults(tmp_path / "back") == []
    assert config.read(tmp_path / "back")["format"] == 2
    returned(away, place)
    assert shown(away) == WANTED | MORE


def test_an_evict_changes_no_state(filled: Path, place: str) -> None:
    pushed(filled, place)
    evicted(filled, place)
    before, after = last_state(transport_to(place)), None
    pushed(filled, place)
    after = last_state(transport_to(place))
    assert before is not None
    assert after is not None
    assert (after.packs.keys(), after.config) == (before.packs.keys(), before.config)
    for name in before.packs.keys() - {max(before.packs)}:
        assert after.packs[name] == before.packs[name]


def test_one_url_for_all(away: Path, place: str, tmp_path: Path) -> None:
    other = f"file://{tmp_path}/other"
    with pytest.raises(PacksElsewhere, match="--keep all"):
        pushed(away, other)
    pulled(place, tmp_path / "copy")
    pushed(tmp_path / "copy", other)
    with pytest.raises(RemoteConflict, match="must go to one URL"):
        evicted(away, other)
    # With and without a slash it is the same one.
    pushed(away, f"{place}/")
    assert evicted(away, f"{place}/").packs == 0


def test_another_store_is_there(
    filled: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store(tmp_path / "other", monkeypatch)
    trio.run(fill, other, MORE)
    pushed(other, place)
    with pytest.raises(NotPushed, match="another store"):
        evicted(filled, place)


def test_somebody_pushed_a_state_without_the_packs(
    filled: Path, place: str, tmp_path: Path
) -> None:
    """A copy of the store went on in another way, and pushed. Nothing is sent over that."""
    pushed(filled, place)
    shutil.copytree(filled, tmp_path / "copy")
    evicted(filled, place)
    with open_store(tmp_path / "copy") as store:
        for name in FILES:
            store.index.purge(store.index.unlink(ROOT, name, 1).ino)

    async def tidy() -> None:
        with open_store(tmp_path / "copy") as opened:
            async with opened.running(count=1) as store:
                await store.give_back()

    trio.run(tidy)
    pushed(tmp_path / "copy", place)
    with pytest.raises(Damaged, match="newest state lacks it"):
        pushed(filled, place)
    # The objects are there until somebody prunes.
    returned(filled, place)
    assert shown(filled) == WANTED


def test_an_encrypted_url(
    filled: Path, place: str, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))
    key, _ = new_identity(tmp_path)
    push_through(filled, opened_to_push(filled, place, recipients=[public_key(key)]))
    assert evicted(filled, open_remote(place, Unlock(key))).packs > 1

    def connect(url: str) -> Transport:
        return for_reading(url, unlock=Unlock(key))

    assert taken(filled, caches, MORE, connect=lost_network) == MORE
    assert shown_partly(filled, caches, connect=connect) == WANTED | MORE
    push_through(filled, opened_to_push(filled, place, key))
    returned(filled, open_remote(place, Unlock(key)))
    assert shown(filled) == WANTED | MORE


# -- who needs all packs


def test_who_needs_all_packs_refuses(away: Path, place: str, tmp_path: Path) -> None:
    with pytest.raises(PacksElsewhere, match="evict --keep all"):
        open_store(away)
    with pytest.raises(PacksElsewhere, match="evict --keep all"):
        open_read_store(away)
    with pytest.raises(PacksElsewhere):
        rebuild_index(away, Disk())
    (away / "index.sqlite").write_bytes(b"")
    with pytest.raises(PacksElsewhere):
        rebuild_index(away, Disk())
    assert not (tmp_path / "backup").exists()


def test_an_older_fsmount_refuses(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_READABLE", (1, 2))
    with pytest.raises(FormatUnsupported):
        open_store(away)
    with pytest.raises(FormatUnsupported):
        open_read_store(away)
    with pytest.raises(FormatUnsupported):
        rebuild_index(away, Disk())


def check(root: Path) -> tuple[list[str], list[str], int]:
    """What a full check says: findings, notices, objects that were not rebuilt."""
    forget_caches()

    async def look() -> tuple[list[str], list[str], int]:
        with open_read_store(root, elsewhere=True) as opened:
            report = check_relations(opened)
            async with opened.running(count=1) as store:
                await check_contents(store, report, lambda count: None)
        whats = [finding.what for finding in report.findings]
        return whats, [notice.why for notice in report.notices], report.elsewhere

    return trio.run(look)


def test_a_check_of_what_is_here(away: Path, caches: Path) -> None:
    findings, notices, elsewhere = check(away)
    assert findings == []
    assert any("fsmount check URL" in why for why in notices)
    assert elsewhere >= len(FILES | LARGE) - 2
    taken(away, caches, noise(1))
    (number,) = packs_here(away)
    path = Layout(away).pack(number)
    data = bytearray(path.read_bytes())
    data[data.index(noise(1)[b"note000"][:40])] ^= 1
    path.write_bytes(data)
    findings, _, again = check(away)
    assert findings
    assert again == elsewhere
    path.unlink()
    assert path.name in check(away)[0]


def test_what_is_away_may_be_forgotten(away: Path, place: str, caches: Path) -> None:
    """Deleted files give up their objects. Nothing that is elsewhere is moved or cut."""
    forget_caches()
    left = {name: data for name, data in WANTED.items() if name != b"large"}
    kept = recorded(Layout(away))

    async def work() -> None:
        with open_store(away, elsewhere=True) as opened:
            async with opened.running(count=1) as store:
                store.index.purge(store.index.unlink(ROOT, b"large", 1).ino)
                await store.give_back()
                assert await store.repack_in_background(lambda: True)
                await store.reclaim(1 << 60)

    trio.run(work)
    assert recorded(Layout(away)) == kept
    assert shown_partly(away, caches) == left
    pushed(away, place)
    remote = transport_to(place)
    prune(remote, remote, keep_states=1)
    assert shown_partly(away, caches / "new") == left
    returned(away, place)
    assert shown(away) == left
    assert faults(away) == []


def test_all_files_of_a_pack_are_deleted(away: Path, place: str, caches: Path) -> None:
    """Packs that nothing needs lose their rows. They do not come back, nor do their numbers."""

    async def work() -> None:
        with open_store(away, elsewhere=True) as opened:
            async with opened.running(count=1) as store:
                for name in FILES:
                    store.index.purge(store.index.unlink(ROOT, name, 1).ino)
                await store.give_back()

    trio.run(work)
    gone = set(recorded(Layout(away)).packs)
    with open_read_store(away, elsewhere=True) as store:
        assert not gone <= store.index.packs().keys()
    left = {name: data for name, data in WANTED.items() if name not in FILES}
    assert taken(away, caches, MORE) == MORE
    assert packs_here(away).isdisjoint(gone)
    pushed(away, place)
    remote = transport_to(place)
    prune(remote, remote, keep_states=1)
    returned(away, place)
    assert config.read(away)["format"] == 2
    assert shown(away) == left | MORE
    assert faults(away) == []


# -- accidents


def test_a_lost_record(away: Path, place: str, caches: Path) -> None:
    """Nobody takes the packs for lost. The URL says again where they are."""
    record = away / "elsewhere.json"
    good = record.read_bytes()
    for bad in (b"", b"{}", good[:-40], good.replace(b'"1"', b'"9"')):
        record.write_bytes(bad)
        for elsewhere in (True, False):
            with pytest.raises(Damaged, match="evict --keep all STORE URL"):
                open_store(away, elsewhere=elsewhere)
            with pytest.raises(Damaged):
                open_read_store(away, elsewhere=elsewhere)
        with pytest.raises(Damaged):
            rebuild_index(away, Disk())
    record.unlink()
    with pytest.raises(Damaged):
        open_store(away, elsewhere=True)
    assert renew_record(Layout(away), Disk(), transport_to(place))
    assert shown_partly(away, caches) == WANTED
    assert not renew_record(Layout(away), Disk(), transport_to(place))
    returned(away, place)
    assert shown(away) == WANTED


def test_a_lost_config(away: Path, caches: Path) -> None:
    """Somebody made it anew as `docs/format.md` says. The record counts all the same."""
    about = config.read(away)
    (away / "fsmount.json").write_text(json.dumps({**about, "format": 1}))
    with pytest.raises(PacksElsewhere):
        open_store(away)
    with pytest.raises(PacksElsewhere):
        rebuild_index(away, Disk())
    assert shown_partly(away, caches) == WANTED
    assert taken(away, caches, MORE) == MORE
    assert config.read(away)["format"] == 3


def test_a_pack_that_was_cut_comes_back(away: Path, place: str, caches: Path) -> None:
    """A copy of the store was restored in part."""
    with open_read_store(away, elsewhere=True) as store:
        for number in store.away.packs:
            Layout(away).pack(number).write_bytes(b"PK")
    assert check(away)[0] == []
    assert shown_partly(away, caches) == WANTED
    assert taken(away, caches, MORE) == MORE
    returned(away, place)
    assert shown(away) == WANTED | MORE
    assert faults(away) == []


@pytest.mark.parametrize("call", ["create", "pwrite"])
def test_a_full_disk(filled: Path, place: str, call: str) -> None:
    pushed(filled, place)
    before = contents(filled)
    disk = FlakyDisk()

    def is_full(name: str, what: object) -> int:
        if name != call:
            return 0
        at = what if isinstance(what, Path) else Path(os.readlink(f"/proc/self/fd/{what}"))
        return errno.ENOSPC if at.name.startswith(("else", "coming")) else 0

    disk.hook = is_full
    with pytest.raises(DiskFull):
        evicted(filled, place, disk=disk)
    assert contents(filled) == before
    done = evicted(filled, place)
    here = packs_here(filled)
    with pytest.raises(DiskFull):
        returned(filled, place, disk=disk)
    assert packs_here(filled) == here
    assert not (filled / "coming.zip").exists()
    assert returned(filled, place).packs == done.packs
    assert shown(filled) == WANTED
