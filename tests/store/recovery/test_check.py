"""Check reports each kind of damage under the right name, and changes nothing."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
import trio

from fsmount.store import store as store_module
from fsmount.store.index import Index, Object
from fsmount.store.ingest import large
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.tree import find
from tests.support.encoding import Inline, forget_caches, put
from tests.support.packs import drop_parity
from tests.support.trees import REAL, import_into, make_store, make_tree

NAMES = sorted(path.name for path in REAL.iterdir())


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with small files of all kinds, and a file that is still staged."""
    root = make_store(tmp_path / "store", monkeypatch)
    trio.run(import_into, root, f"{make_tree(tmp_path / 'in')}/")
    drop_parity(root)
    store = open_store(root)
    put(store, b"staged", b"not encoded yet")
    store.close()
    return root


def state(root: Path) -> dict[str, str]:
    """Hashes of all files of a store except the journal of its index."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def check(root: Path, *, full: bool = False) -> Report:
    """Check a store, and assert that this changes nothing. Returns the report."""
    forget_caches()
    before = state(root)

    async def run() -> Report:
        opened = open_read_store(root)
        try:
            report = check_relations(opened)
            if full:
                async with opened.running(count=1) as store:
                    await check_contents(store, report, lambda count: None)
            return report
        finally:
            opened.close()

    report = trio.run(run)
    assert state(root) == before
    return report


def sql(root: Path, *statements: str) -> None:
    """Change rows without the code of the store. The page checksums stay correct."""
    open_read_store(root).close()  # loads cksumvfs
    db = apsw.Connection(str(root / "index.sqlite"), vfs="cksmvfs")
    for statement in statements:
        db.execute(statement)
        assert db.changes() > 0, statement
    db.close()


def first_pack(root: Path) -> Path:
    return root / "packs" / "00000001.zip"


def staged_file(root: Path) -> Path:
    (path,) = (root / "staging").iterdir()
    return path


@pytest.mark.parametrize("full", [False, True])
def test_a_whole_store(root: Path, full: bool) -> None:
    report = check(root, full=full)
    assert report.findings == []
    assert report.objects >= 7


def test_an_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_store(tmp_path / "store", monkeypatch)
    assert check(root, full=True) == Report()


def one(report: Report, what: str, why: str) -> list[str]:
    """The files of the only finding. It must have this name and reason."""
    ((found, reason, files),) = report.findings
    assert (found, why in reason) == (what, True), report.findings
    return files


def test_a_pack_that_is_cut_off(root: Path) -> None:
    store = open_read_store(root)
    last = max(store.index.all_objects(), key=lambda found: found.offset)
    names = {os.fsdecode(name) for name in store.index.names_of(last.id)}
    store.close()
    os.truncate(first_pack(root), last.offset + last.length - 1)
    files = one(check(root), "00000001.zip", f"has only {last.offset + last.length - 1} of")
    assert names == set(files)


def test_a_pack_that_is_gone(root: Path) -> None:
    first_pack(root).unlink()
    files = one(check(root), "00000001.zip", "the pack is missing")
    assert {"desk/2024 June/00.png", "again.png", "grün.bin", "zero"} < set(files)
    assert "staged" not in files


def test_a_staged_file_that_is_gone(root: Path) -> None:
    staged_file(root).unlink()
    assert one(check(root), "staged", "staged file") == []


def test_large_files_in_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "KEEP_BYTES", 1000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").write_bytes(os.urandom(5000))
    root = make_store(tmp_path / "store", monkeypatch)
    trio.run(import_into, root, f"{tmp_path}/in/")
    (kept,) = (root / "raw").iterdir()
    assert check(root, full=True).findings == []
    data = bytearray(kept.read_bytes())
    data[77] ^= 1
    kept.write_bytes(data)
    assert check(root).findings == []
    assert one(check(root, full=True), "object 1", "segment 0") == ["large"]
    os.truncate(kept, 4999)
    assert one(check(root), f"raw/{kept.name}", "has 4999 bytes and should have 5000") == ["large"]
    kept.unlink()
    assert one(check(root), f"raw/{kept.name}", "the file is missing") == ["large"]


ZERO = "(SELECT ino FROM dirents WHERE name = CAST('zero' AS BLOB))"
FOLDER = "(SELECT ino FROM dirents WHERE name = CAST('empty' AS BLOB))"
OBJECT = f"(SELECT object FROM inodes WHERE ino = {ZERO})"


@pytest.mark.parametrize(
    ("statement", "what", "why"),
    [
        (
            f"UPDATE inodes SET nlink = 3 WHERE ino = {ZERO}",
            "zero",
            "link count is 3 and should be 1",
        ),
        (f"UPDATE inodes SET nlink = 1 WHERE ino = {FOLDER}", "empty", "link count is 1 and"),
        ("UPDATE inodes SET nlink = 2 WHERE ino = 1", "inode 1", "link count is 2 and should be"),
        (f"UPDATE inodes SET object = NULL WHERE ino = {ZERO}", "zero", "has neither a staged"),
        (f"UPDATE inodes SET staged = 99 WHERE ino = {ZERO}", "zero", "both a staged file and"),
        (f"UPDATE inodes SET object = 999 WHERE ino = {ZERO}", "zero", "object 999 does not exist"),
        (f"UPDATE inodes SET size = 7 WHERE ino = {ZERO}", "zero", "its size is 7"),
        (
            f"UPDATE objects SET uses = 9 WHERE id = {OBJECT}",
            "object",
            "counts 9 files that show it, and 1 do",
        ),
        (f"UPDATE objects SET offset = 1 << 40 WHERE id = {OBJECT}", "object", "outside pack 1"),
        (f"UPDATE objects SET pack = 7 WHERE id = {OBJECT}", "object", "outside pack 7"),
        ("UPDATE packs SET length = length + 5000", "00000001.zip", "has only"),
        (f"UPDATE objects SET needs = x'ff000000' WHERE id = {OBJECT}", "object", "[255]"),
        (
            "INSERT INTO dirents (folder, name, ino) VALUES (1, CAST('ghost' AS BLOB), 999)",
            "ghost",
            "the name shows no file, or",
        ),
        (
            f"INSERT INTO dirents (folder, name, ino) VALUES ({ZERO}, CAST('x' AS BLOB), {ZERO})",
            "x",
            "the name shows no file, or",
        ),
        (f"DELETE FROM inodes WHERE ino = {FOLDER}", "empty", "the name shows no file, or"),
        (
            f"DELETE FROM dirents WHERE ino = {ZERO}",
            "inode",
            "link count is 1 and should be 0",
        ),
    ],
)
def test_rows_that_cannot_be(root: Path, statement: str, what: str, why: str) -> None:
    sql(root, statement)
    found = check(root).findings
    hits = [name for name, reason, _ in found if why in reason]
    assert any(name == what or name.startswith(what + " ") for name in hits), found


def test_a_hash_in_the_index_that_is_another(root: Path) -> None:
    sql(root, f"UPDATE objects SET sha256 = zeroblob(32) WHERE id = {OBJECT}")
    ((what, why, _),) = check(root).findings
    assert what == "index.sqlite"
    assert re.fullmatch(r'its copy says something else than \["object",\d+,"raw"\]', why)
    # After more writes, the copy is of another time.
    sql(root, "UPDATE meta SET value = value - 1 WHERE key = 'copied'")
    assert check(root).findings == []
    ((what, why, files),) = check(root, full=True).findings
    assert what.startswith("object ")
    assert "hash" in why
    assert files == ["zero"]


def test_a_page_of_the_index(root: Path) -> None:
    index = root / "index.sqlite"
    data = bytearray(index.read_bytes())
    data[-4000] ^= 1
    index.write_bytes(data)
    report = check(root)
    assert one(report, "index.sqlite", "") == []
    assert not report.readable


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of real screenshots, as an archive has them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = make_store(tmp_path_factory.mktemp("real") / "store", monkeypatch)
        trio.run(import_into, root, REAL)
    drop_parity(root)
    return root


@pytest.fixture
def real(stored: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Object]]:
    """The store of real screenshots, and its objects. Its jobs run in this process."""
    monkeypatch.setattr(store_module, "Workers", Inline)
    store = open_read_store(stored)
    try:
        return stored, list(store.index.all_objects())
    finally:
        store.close()


def flip(path: Path, at: int) -> Callable[[], None]:
    """Change a byte. The returned function changes it back."""

    def change() -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)

    change()
    return change


def test_a_byte_of_a_payload_and_all_files_that_need_it(
    real: tuple[Path, list[Object]],
) -> None:
    """The first frame is a keyframe. All the others take pixels from it."""
    root, objects = real
    assert [found.kind for found in objects] == ["key"] + ["delta"] * 5
    key = objects[0]
    back = flip(first_pack(root), key.offset + key.length // 2)
    assert check(root).findings == []
    report = check(root, full=True)
    ((what, _, files),) = report.findings
    assert (what, set(files)) == (f"object {key.id}", {f"desk/{n}" for n in NAMES})
    assert report.unreadable == {found.id for found in objects}
    assert (report.damaged, report.hit) == ({key.id}, set(files))
    back()
    assert check(root, full=True).findings == []
    last = objects[-1]
    back = flip(first_pack(root), last.offset + last.length - 1)
    ((what, _, files),) = check(root, full=True).findings
    back()
    assert (what, files) == (f"object {last.id}", [f"desk/{NAMES[-1]}"])


@pytest.mark.parametrize("where", ["start", "name", "record"])
def test_a_byte_of_a_header(root: Path, where: str) -> None:
    store = open_read_store(root)
    inode = find(store, b"locked/inside")
    assert inode is not None and inode.object_id is not None
    found = store.index.object(inode.object_id)
    store.close()
    flip(first_pack(root), found.offset + {"start": 1, "name": 37, "record": 60}[where])
    assert check(root).findings == []
    ((what, _, files),) = check(root, full=True).findings
    assert (what, files) == (f"object {found.id}", ["locked/inside"])


def test_whatever_a_damaged_object_raises(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ReadStore.body
    store = open_read_store(root)
    bad = next(found for found in store.index.all_objects() if found.uses and not found.needs)
    store.close()

    async def fail(store: ReadStore, object_id: int) -> object:
        if object_id == bad.id:
            raise OverflowError
        return await real(store, object_id)

    async def together(*_: object, **__: object) -> list[None]:
        return [None]

    monkeypatch.setattr(ReadStore, "render", together)
    monkeypatch.setattr(ReadStore, "body", fail)
    assert [(what, why) for what, why, _ in check(root, full=True).findings] == [
        (f"object {bad.id}", "OverflowError()")
    ]


def test_each_damaged_entry_is_one_finding_the_most_needed_first(
    real: tuple[Path, list[Object]],
) -> None:
    root, objects = real
    few, many = objects[-1], objects[0]
    backs = [flip(first_pack(root), each.offset + each.length - 1) for each in (few, many)]
    report = check(root, full=True)
    for back in backs:
        back()
    assert [what for what, _, _ in report.findings] == [f"object {o.id}" for o in (many, few)]
    assert [len(files) for _, _, files in report.findings] == [len(NAMES), 1]
    assert report.damaged == {few.id, many.id}
    assert report.hit == {f"desk/{name}" for name in NAMES}


def test_beside_a_mount_all_is_of_one_moment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer encodes, adds and removes during the check. Check finds no damage."""
    opened_writer = open_store(root)

    async def busy() -> None:
        async with opened_writer.running(count=1) as writer:
            put(writer, b"new", b"new")
            await writer.drain()

    names = Index.dangling_names

    def slow(index: Index) -> list[bytes]:
        if index.read_only and not done:
            done.append(True)
            inode = find(opened_writer, b"staged")
            assert inode is not None and inode.staged is not None
            trio.from_thread.run(busy)
            assert opened_writer.index.inode(inode.ino).staged is None
        return names(index)

    done: list[bool] = []
    monkeypatch.setattr(Index, "dangling_names", slow)

    async def run() -> Report:
        store = open_read_store(root)
        try:
            return await trio.to_thread.run_sync(check_relations, store)
        finally:
            store.close()

    assert trio.run(run).findings == []
    assert done
    opened_writer.close()


def test_staged_files_of_another_writer_without_a_row(root: Path) -> None:
    """Files of the last writer without a row come from a running mount or a crash: no damage."""
    store = open_store(root)
    store.staging.create()
    last = store.index.writer()
    others = []
    for writer in (0, last + 1):
        store.staging.begin(writer)
        others.append(store.staging.create())
    store.close()
    report = check(root)
    assert [what for what, _, _ in report.findings] == [f"staging/{token}" for token in others]
    assert all("lost/" in why for _, why, _ in report.findings)
    open_store(root).close()
    assert check(root).findings == []
    assert len(list((root / "lost").iterdir())) == 2
