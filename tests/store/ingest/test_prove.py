"""The last check before a staged copy is removed notices every difference from the proof."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.frames.jobs import Proof
from fsmount.store.frames.relations import Below, References
from fsmount.store.index import Object
from fsmount.store.ingest import prove
from fsmount.store.packs import entries
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.pack import Entry, Pack, build_entry
from tests.support.packs import flip

BODY = b"not a picture"
ABOUT = FileFacts(7, "notes/a.txt", 123, hashlib.sha256(BODY).digest(), len(BODY))


def appended(folder: Path, entry: Entry, kind: str) -> tuple[Path, Object]:
    """Write a pack with this entry alone. Returns its path and the row of the index."""
    pack = Pack(folder / "00000001.zip", 1, Disk(), 0)
    offset, length = pack.append(entry)
    pack.close()
    size, sha256 = ABOUT.size, ABOUT.sha256
    row = Object(7, kind, 1, offset, length, size, sha256, 2, needs=(3, 7), layer=(3,), reason=None)
    return pack.path, row


def test_a_staged_file(tmp_path: Path) -> None:
    path = tmp_path / "1"
    path.write_bytes(BODY)
    assert prove.is_staged(path, ABOUT.sha256, ABOUT.size)
    assert not prove.is_staged(path, ABOUT.sha256, ABOUT.size + 1)
    assert not prove.is_staged(path, hashlib.sha256(b"").digest(), ABOUT.size)
    path.write_bytes(BODY + b"!")
    assert not prove.is_staged(path, ABOUT.sha256, ABOUT.size)


def test_a_frame(tmp_path: Path) -> None:
    entry = Entry("00000007.webp", b"a record", b"a payload")
    path, row = appended(tmp_path, entry, "delta")
    named, levels = References((4,), (3,), 2), ((3, 0), (4, 1))
    below = {3: Below((), 0), 4: Below((1, 3), 1)}
    row = replace(row, needs=(1, 2, 3, 4), layer=(2, 3), depth=2)
    digest = entries.entry_digest(build_entry(entry), ABOUT, "delta", (named, levels, b"anchor"))
    proof = Proof(named, levels, b"anchor", digest)
    prove.check_frame(path, row, ABOUT, proof, below)
    changes = [
        replace(row, **change)
        for change in (
            {"offset": 1}, {"length": row.length + 1}, {"length": row.length - 1}, {"kind": "key"},
            {"depth": 1}, {"needs": (1, 2, 3)}, {"layer": ()},
        )
    ]  # fmt: skip
    for wrong in changes:
        with pytest.raises(Damaged):
            prove.check_frame(path, wrong, ABOUT, proof, below)
    for lie in (
        proof._replace(references=References((4,), (3,), 0)),
        proof._replace(references=References((), (3,), 2)),
        proof._replace(levels=((3, 0), (4, 0))),
        proof._replace(anchor=b""),
        proof._replace(digest=bytes(32)),
    ):
        with pytest.raises(Damaged):
            prove.check_frame(path, row, ABOUT, lie, below)
    with pytest.raises(Damaged):
        prove.check_frame(path, row, replace(ABOUT, sha256=bytes(32)), proof, below)
    flip(path, row.length - 1)
    with pytest.raises(Damaged):
        prove.check_frame(path, row, ABOUT, proof, below)


def raw(about: FileFacts) -> Entry:
    return entries.raw_entry(about, "not a PNG", BODY)


@pytest.mark.parametrize(
    "entry",
    [
        raw(replace(ABOUT, id=8)),
        raw(replace(ABOUT, sha256=bytes(32))),
        raw(replace(ABOUT, size=1)),
        raw(replace(ABOUT, path="b")),
        replace(raw(ABOUT), payload=BODY[1:]),
        replace(raw(ABOUT), name="00000007.bin"),
        # A record that has an anchor.
        replace(raw(ABOUT), record=b"\1" + raw(ABOUT).record[1:]),
        entries.jpeg_entry(ABOUT, BODY),
    ],
)
def test_another_entry_than_that_of_a_raw_file(tmp_path: Path, entry: Entry) -> None:
    path, row = appended(tmp_path, entry, "raw")
    with pytest.raises(Damaged):
        prove.check_whole(path, row, ABOUT, ABOUT.sha256, ".txt")


def test_a_raw_file(tmp_path: Path) -> None:
    path, row = appended(tmp_path, raw(ABOUT), "raw")
    prove.check_whole(path, row, ABOUT, ABOUT.sha256)
    with pytest.raises(Damaged):
        prove.check_whole(path, replace(row, length=row.length - 1), ABOUT, ABOUT.sha256)
    flip(path, row.length - 1)
    with pytest.raises(Damaged):
        prove.check_whole(path, row, ABOUT, ABOUT.sha256)
