"""Evict: leave sealed packs to a URL, which has them, and bring them back.

A pack goes if the newest state at the URL names it, and if each object that it consists of there,
read now, has the bytes of the file here. The record of the store names the pack before the file
goes (:mod:`fsmount.store.elsewhere`). Whoever is killed in between leaves a store that has the pack
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsmount.errors import Damaged, NotPushed, RemoteConflict
from fsmount.folder import readable
from fsmount.remote.away import body_of
from fsmount.remote.objects import PACKS, Body, State, last_state, read_part
from fsmount.remote.transport import Transport
from fsmount.store import config
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.elsewhere import Away, Elsewhere, missing, note, recorded, settle
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.maintenance.parity_keeper import is_wrong
from fsmount.store.packs import parity
from fsmount.store.packs.pack import read_entry
from fsmount.store.transfer.backup_packs import keep_mtime, opened
from fsmount.store.transfer.tree import Progress, naming_full_disk


@dataclass
class EvictSummary:
    """The result of an evict, or what it would be.

    packs, bytes : packs that went or came back, and their bytes.
    here_bytes : bytes of the packs that are here.
    away_packs, away_bytes : packs that are at the URL only.
    unpushed : packs that were to go, and that the newest state there does not have.
    """

    packs: int = 0
    bytes: int = 0
    here_bytes: int = 0
    away_packs: int = 0
    away_bytes: int = 0
    unpushed: int = 0


def same_url(one: str, other: str) -> bool:
    """Whether two URLs name the same place."""
    return one.rstrip("/") == other.rstrip("/")


def evict(
    store: StoreFiles,
    remote: Transport,
    *,
    keep: int,
    dry_run: bool = False,
    progress: Progress = lambda files, count: None,
) -> EvictSummary:
    """Drop sealed packs that are at a URL, the oldest first, until at most `keep` bytes are left.

    The caller owns the store. `progress` gets packs and bytes that are done. A dry run believes the
    newest state, and reads no object.

    Waits for disk and network. Raises :class:`NotPushed` if this store was not pushed there,
    :class:`RemoteConflict` if packs of it are at another URL, :class:`Damaged` if bytes here and
    there differ, errors of the transport, :class:`DiskFull`, OSError. What went before the error is
    at the URL then, and all else is here.
    """
    layout = store.layout
    state = _state(remote, store.index)
    before = recorded(layout)
    if before.packs and not same_url(before.url, remote.url):
        why = f"packs of the store are at {before.url}, and all that leave it must go to one URL"
        raise RemoteConflict(remote.url, reason=why)
    done = EvictSummary()
    sizes = dict(_here(store))
    done.here_bytes = sum(sizes.values())
    packs = dict(before.packs)
    # What the rows say must survive a power cut, as the record does.
    store.index.force()
    for number, size in sizes.items():
        _, is_sealed = store.index.packs()[number]
        if done.here_bytes <= keep:
            break
        if not is_sealed:
            continue
        body = state.packs.get(layout.pack(number).name)
        if body is None or body.length != size or any(p.kind != PACKS for p in body.parts):
            done.unpushed += 1
            continue
        if not dry_run:
            _compare(store, number, body, remote, progress)
            packs[number] = _away(body)
            with naming_full_disk(store.path):
                if store.index.reserve is not None:
                    store.index.reserve.spend_if_full()
                note(layout, store.disk, Elsewhere(remote.url, packs))
            _drop(layout, store.disk, number)
        else:
            packs[number] = _away(body)
        done.packs += 1
        done.bytes += size
        done.here_bytes -= size
        progress(1, 0)
    _count_away(done, Elsewhere(remote.url, packs))
    return done


def _state(remote: Transport, index: Index) -> State:
    """The newest state of a store. Raises :class:`NotPushed`, :class:`Damaged` and so on."""
    state = last_state(remote)
    if state is None:
        why = "nothing was pushed there. Check the URL, or send the store: fsmount push STORE URL"
        raise NotPushed(remote.url, reason=why)
    if state.uuid != index.identity():
        raise NotPushed(remote.url, reason="another store is there. Check the URL")
    return state


def _here(store: StoreFiles) -> Iterator[tuple[int, int]]:
    """Number and bytes of each pack that is here, in order."""
    for number in sorted(store.index.packs()):
        path = store.layout.pack(number)
        if path.exists():
            yield number, path.stat().st_size


def _away(body: Body) -> Away:
    rows = tuple((part.folder, part.sha256, part.length) for part in body.parts)
    return Away(body.length, body.mtime_ns, rows)


def _count_away(done: EvictSummary, away: Elsewhere) -> None:
    done.away_packs, done.away_bytes = len(away.packs), away.bytes


def _compare(
    store: StoreFiles, number: int, body: Body, remote: Transport, progress: Progress
) -> None:
    """Compare a pack with what is at the URL, byte by byte, and look for damage in it.

    Raises :class:`Damaged` and other errors of the transport, OSError.
    """
    path = store.layout.pack(number)
    length, _ = store.index.packs()[number]
    # Both sides may have the same damage, if it was there before the push. Only the parity that is
    # here could mend it.
    if is_wrong(path, length):
        raise _damaged(path, "it differs from its parity")
    for found in store.index.objects_in(number):
        try:
            entry = read_entry(path, found.offset, found.length)
        except Damaged as error:
            raise _damaged(path, f"object {found.id}: {error.fields['reason']}") from error
        if entry.object_id != found.id:
            raise _damaged(path, f"the place of object {found.id} holds another one")
    with opened(path) as source:
        at = 0
        for part in body.parts:
            there = read_part(remote, part)
            if pread(source, part.length, at) != there:
                why = f"it has other bytes than those that were pushed ({remote.url}/{part.name})"
                raise _damaged(path, why)
            at += part.length
            progress(0, part.length)


def _damaged(path: Path, why: str) -> Damaged:
    why += ". Nothing of it was dropped. fsmount check --repair may heal it; then push and evict"
    return Damaged(readable(str(path)), reason=why)


def _drop(layout: Layout, disk: Disk, number: int) -> None:
    """Remove a pack for certain. Parity without its pack is useless."""
    disk.unlink(layout.parity(number))
    disk.unlink(layout.pack(number))
    disk.fsync_folder(layout.packs)


# -- and back


def bring_back(
    store: StoreFiles,
    remote: Transport,
    *,
    dry_run: bool = False,
    progress: Progress = lambda files, count: None,
) -> EvictSummary:
    """Bring all packs back that are at a URL only. The store is as any other one then.

    The caller owns the store. `progress` gets packs and bytes that are done. The hash of each
    object is compared. Waits for disk and network. Raises :class:`Damaged` if an object is damaged,
    other errors of the transport, :class:`DiskFull`, OSError. What came before the error stays.
    """
    layout, disk = store.layout, store.disk
    away = missing(layout)
    done = EvictSummary(here_bytes=sum(size for _, size in _here(store)))
    known = store.index.packs()
    percent = config.parity_of(config.read(layout.root))
    for number, each in sorted(away.packs.items()):
        # A pack that nothing needs any more has no row.
        if number in known:
            if not dry_run:
                with naming_full_disk(store.path):
                    _bring(layout, disk, number, body_of(each), remote, progress)
                    if percent:
                        shape = parity.plan(number, known[number][0], percent)
                        data = parity.build(layout.pack(number), shape)
                        disk.write_file(layout.parity(number), data)
            done.packs += 1
            done.bytes += each.length
            done.here_bytes += each.length
        progress(1, 0)
    if not dry_run:
        if away.packs:
            # All of them are here, but for those that nothing needs.
            note(layout, disk, Elsewhere(away.url))
        settle(layout, disk)
    return done


def _bring(
    layout: Layout, disk: Disk, number: int, body: Body, remote: Transport, progress: Progress
) -> None:
    """Bring a pack, force it, and give it its name."""
    scratch = layout.coming_pack
    disk.unlink(scratch)
    fd = disk.create(scratch)
    try:
        at = 0
        for part in body.parts:
            disk.pwrite(fd, read_part(remote, part), at)
            at += part.length
            progress(0, part.length)
        disk.fsync(fd)
        keep_mtime(disk, fd, body.mtime_ns)
    except BaseException:
        disk.unlink(scratch)
        raise
    finally:
        disk.close(fd)
    disk.rename(scratch, layout.pack(number))
    disk.fsync_folder(layout.packs)
    disk.fsync_folder(layout.root)


def renew_record(layout: Layout, disk: Disk, remote: Transport) -> bool:
    """Make a record that was lost or damaged anew, from the newest state at a URL.

    The caller owns the store. Returns False if the record can be read. Raises :class:`Damaged` if
    the state lacks a pack, and as :func:`evict`.
    """
    try:
        recorded(layout)
        return False
    except Damaged:
        pass
    index = Index(layout.index, disk, read_only=True)
    try:
        state = _state(remote, index)
        packs = index.packs()
    finally:
        index.close()
    found = {}
    for number, (length, is_sealed) in packs.items():
        path = layout.pack(number)
        if length and is_sealed and not path.exists():
            body = state.packs.get(path.name)
            if body is None or body.length < length:
                why = f"it is neither here nor at {remote.url}"
                raise Damaged(readable(str(path)), reason=why)
            found[number] = _away(body)
    note(layout, disk, Elsewhere(remote.url, found))
    return True
