"""JPEGs in a store: they take less space, keep their bytes, and disturb no other file."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fsmount.cli import main
from fsmount.codec.images import jpeg
from fsmount.codec.memory import WorkerMemory
from fsmount.errors import Damaged, NeedsExtra
from fsmount.legacy import archive
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.frames.tile_keys import load_keys
from fsmount.store.index import ROOT, Object
from fsmount.store.ingest import large
from fsmount.store.layout import Layout
from fsmount.store.packs.entries import FileFacts, jpeg_entry
from fsmount.store.packs.pack import Entry, build_entry, parse_entry, read_entry
from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.recovery.repair import Repairs
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer import estimating
from fsmount.store.transfer.estimating import estimate
from tests.repairing import repair
from tests.support import photos
from tests.support.encoding import Inline, forget_caches, get, put, rewrite
from tests.support.frames import png, screens
from tests.support.packs import drop_parity, unzipped
from tests.support.trees import export_from, import_into, make_store

pytest.importorskip("imagecodecs")

NO_JPEG = b"\xff\xd8\xff" + b"no JPEG at all" * 20


@functools.cache
def camera(seed: int) -> bytes:
    """A photo. Its profile has the time at which the profile was made."""
    return photos.camera(seed)


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(archive, "Workers", Inline)
    return make_store(tmp_path / "store", monkeypatch)


def samples() -> dict[bytes, bytes]:
    """Screenshots, photos among them, and a file that only begins like a photo."""
    frames = screens(4, height=64)
    files = {b"%d.png" % number: png(frame) for number, frame in enumerate(frames)}
    files |= {b"%d.jpg" % number: camera(number) for number in range(3)}
    return files | {b"3.jpg": NO_JPEG, b"note": b"not a picture"}


async def fill(root: Path, files: dict[bytes, bytes]) -> None:
    opened = open_store(root)
    try:
        async with opened.running(count=2) as store:
            for name, data in sorted(files.items()):
                put(store, name, data)
            await store.drain()
    finally:
        opened.close()


def objects(root: Path) -> dict[bytes, Object]:
    store = open_read_store(root)
    try:
        found = store.index.all_objects()
        return {name: one for one in found for name in store.index.names_of(one.id)}
    finally:
        store.close()


async def read(root: Path) -> dict[bytes, bytes | str]:
    """The bytes of every file of a store, or the error text if a file cannot be read."""
    forget_caches()
    answers: dict[bytes, bytes | str] = {}
    opened = open_read_store(root)
    try:
        async with opened.running(count=1) as store:
            for name, inode in store.index.walk():
                try:
                    answers[name] = await get(store, inode.ino)
                except (Damaged, NeedsExtra) as error:
                    answers[name] = str(error)
    finally:
        opened.close()
    return answers


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine that does not have the extra."""
    monkeypatch.setattr(jpeg, "imagecodecs", lambda part: None)


async def test_jpegs_come_back_and_are_smaller(root: Path) -> None:
    files = samples()
    await fill(root, files)
    assert await read(root) == files
    found = objects(root)
    assert {name for name, one in found.items() if one.kind == "jpeg"} == {
        *(b"0.jpg", b"1.jpg", b"2.jpg")
    }
    for name, one in found.items():
        if one.kind == "jpeg":
            assert one.length < 0.9 * len(files[name])
            assert (one.depth, one.needs, one.layer, one.reason) == (0, (), (), None)
            assert not one.is_kept
    assert (found[b"3.jpg"].kind, found[b"3.jpg"].reason) == ("raw", jpeg.NO_FORM)
    store = open_read_store(root)
    stats = store.stats()
    store.close()
    assert stats["objects"] == {"key": 1, "delta": 3, "jpeg": 3, "raw": 2, "staged": 0}
    assert stats["frames"] == 4
    assert stats["raw_reasons"] == {"not a PNG": 1, jpeg.NO_FORM: 1}


async def test_a_pack_holds_files_that_viewers_open(root: Path) -> None:
    files = samples()
    await fill(root, files)
    found = objects(root)[b"1.jpg"]
    members = {
        name: data
        for path in (root / "packs").glob("*.zip")
        for name, data in unzipped(path).items()
    }
    payload = members[f"{found.id:08x}.jxl"]
    assert payload[4:8] == b"JXL "
    assert jpeg.decode(payload, "it") == files[b"1.jpg"]


async def test_screenshots_are_planned_as_if_no_jpeg_were_there(root: Path, tmp_path: Path) -> None:
    files = samples()
    await fill(root, files)
    config.make(tmp_path / "other", Disk())
    await fill(tmp_path / "other", {n: data for n, data in files.items() if n.endswith(b".png")})
    ours, theirs = objects(root), objects(tmp_path / "other")
    for name, one in theirs.items():
        assert (ours[name].kind, ours[name].depth) == (one.kind, one.depth)
        assert abs(ours[name].length - one.length) < 8  # ids have different lengths
        assert len(ours[name].needs) == len(one.needs)
    store = open_read_store(root)
    known = {copy.object for copy, _ in load_keys(store.index.known_tiles("150x64x3:uint8"))}
    store.close()
    assert known
    assert not known & {one.id for name, one in ours.items() if one.kind == "jpeg"}


async def test_equal_jpegs_share_an_object_and_are_coded_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    whole = jobs.transcode

    def counted(path: str, sha256: bytes) -> jobs.Transcoded:
        calls.append(path)
        return whole(path, sha256)

    monkeypatch.setattr(jobs, "transcode", counted)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"a.jpg", camera(1))
        await store.drain()
        put(store, b"b.jpg", camera(1))
        await store.drain()
    opened.close()
    assert len(calls) == 1
    assert objects(root)[b"a.jpg"] == objects(root)[b"b.jpg"]


async def test_a_jpeg_that_is_written_again_while_it_is_coded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_store(root)
    again: list[int] = []

    async with opened.running(count=1) as store:

        async def before(function: Any) -> None:
            if function is jobs.transcode and not again:
                again.append(1)
                rewrite(store, ino, camera(2))

        monkeypatch.setattr(Inline, "before", staticmethod(before))
        ino = put(store, b"a.jpg", camera(1))
        await store.drain()
        assert await get(store, ino) == camera(2)
    opened.close()
    assert again
    assert objects(root)[b"a.jpg"].kind == "jpeg"


async def test_a_large_one_stays_a_file_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "KEEP_BYTES", 5000)
    await fill(root, {b"a.jpg": camera(1)})
    assert objects(root)[b"a.jpg"].is_kept
    assert await read(root) == {b"a.jpg": camera(1)}


@pytest.mark.parametrize("error", [RuntimeError("no"), MemoryError("no"), ValueError("no")])
async def test_whatever_goes_wrong_keeps_the_file_as_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def transcode(path: str, sha256: bytes) -> bytes:
        raise error

    monkeypatch.setattr(jobs, "transcode", transcode)
    await fill(root, {b"a.jpg": camera(1)})
    assert (objects(root)[b"a.jpg"].kind, await read(root)) == ("raw", {b"a.jpg": camera(1)})


# -- without the extra


async def test_written_without_the_extra_it_is_raw_as_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        without(patch)
        await fill(root, {b"a.jpg": camera(1)})
        found = objects(root)[b"a.jpg"]
        assert (found.kind, found.reason) == ("raw", "not a PNG")
    assert await read(root) == {b"a.jpg": camera(1)}


async def test_read_without_the_extra_only_jpegs_fail_and_it_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = samples()
    await fill(root, files)
    without(monkeypatch)
    answers = await read(root)
    for name, data in files.items():
        if name in (b"0.jpg", b"1.jpg", b"2.jpg"):
            assert "pip install 'fsmount[jpeg]'" in str(answers[name])
        else:
            assert answers[name] == data
    exporter = await export_from(root, tmp_path / "out")
    assert {Path(path).name for path, _ in exporter.summary.problems} == {
        *("0.jpg", "1.jpg", "2.jpg")
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        os.fsdecode(name) for name in files
    } - {"0.jpg", "1.jpg", "2.jpg"}


async def check(root: Path) -> Report:
    forget_caches()
    opened = open_read_store(root)
    try:
        report = check_relations(opened)
        async with opened.running(count=1) as store:
            await check_contents(store, report, lambda count: None)
    finally:
        opened.close()
    return report


async def test_check_and_repair_without_the_extra_find_no_damage(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = samples()
    await fill(root, files)
    assert ((await check(root)).findings, (await check(root)).unchecked) == ([], [])
    with monkeypatch.context() as patch:
        without(patch)
        report = await check(root)
        assert (report.findings, report.unreadable) == ([], set())
        assert sorted(files for _, files in report.unchecked) == [["0.jpg"], ["1.jpg"], ["2.jpg"]]
        assert all("fsmount[jpeg]" in why for why, _ in report.unchecked)
        repairs, report = await repair(root)
        assert (repairs, report.findings) == (Repairs(), [])
    assert await read(root) == files


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(out) if out.startswith("{") else out, err


def test_what_the_commands_say(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, data in samples().items():
        (source / os.fsdecode(name)).write_bytes(data)
    # A JPEG without such a form is kept as it is. The user asked for that: no warning.
    code, _, err = run(capsys, "import", f"{source}/", root)
    assert (code, err) == (0, "")
    code, said, _ = run(capsys, "stats", root)
    assert "3 JPEGs as JPEG XL" in said
    code, said, _ = run(capsys, "ls", root)
    assert said.count(" jpeg ") == 3
    assert run(capsys, "verify", f"{source}/", root)[0] == 0
    assert run(capsys, "check", root, "--full")[0] == 0
    without(monkeypatch)
    code, said, err = run(capsys, "check", root, "--full")
    assert (code, "no damage found" in said, "fsmount[jpeg]" in err) == (3, True, True)
    code, found, _ = run(capsys, "check", root, "--full", "--json")
    assert (code, len(found["unchecked"]), found["findings"]) == (3, 3, [])
    code, found, _ = run(capsys, "verify", f"{source}/", root, "--json")
    assert (code, len(found["problems"])) == (1, 3)


# -- damage


def entry_of(root: Path, found: Object) -> Entry:
    return read_entry(Layout(root).pack(found.pack), found.offset, found.length)


async def test_a_damaged_one_is_damage_of_that_file_alone(root: Path) -> None:
    files = samples()
    await fill(root, files)
    drop_parity(root)
    found = objects(root)[b"1.jpg"]
    path = Layout(root).pack(found.pack)
    data = bytearray(path.read_bytes())
    data[found.offset + found.length - 100] ^= 1
    path.write_bytes(data)
    answers = await read(root)
    assert "damaged" in str(answers.pop(b"1.jpg"))
    assert answers == {name: data for name, data in files.items() if name != b"1.jpg"}
    report = await check(root)
    assert [names for _, _, names in report.findings] == [["1.jpg"]]
    repairs, _ = await repair(root)
    assert repairs.lost == ["1.jpg"]
    assert await read(root) == {name: data for name, data in files.items() if name != b"1.jpg"}


def rendered(entry: Entry, sha256: bytes) -> bytes:
    parsed, _ = parse_entry(build_entry(entry))
    return jobs.rendered(parsed, Reader([], WorkerMemory(), JobLayers(Loan())), sha256)


def test_a_payload_that_gives_another_jpeg_is_never_served() -> None:
    sha256 = hashlib.sha256(camera(1)).digest()
    about = FileFacts(5, "a.jpg", 1, sha256, len(camera(1)))
    entry = jpeg_entry(about, jpeg.encode(camera(1)))
    assert rendered(entry, sha256) == camera(1)
    for payload in (jpeg.encode(camera(2)), jpeg.encode(camera(1))[:-9], b"", b"\0" * 99):
        with pytest.raises(Damaged, match="object 5"):
            rendered(Entry(entry.name, entry.record, payload), sha256)
    with pytest.raises(Damaged, match="object 5"):
        rendered(Entry("00000005.webp", entry.record, entry.payload), sha256)


@pytest.mark.parametrize("names_too", [False, True])
async def test_a_lost_index_is_made_anew(root: Path, names_too: bool) -> None:
    files = samples()
    await fill(root, files)
    before = objects(root)
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
        (root / name).unlink(missing_ok=True)
    if names_too:
        Layout(root).names_copy.unlink()
    repairs, report = await repair(root)
    assert (repairs.lost, report.findings) == ([], [])
    assert await read(root) == files
    assert {name: one.kind for name, one in objects(root).items()} == {
        name: one.kind for name, one in before.items()
    }


# -- repack, estimate


@pytest.mark.parametrize("there", [True, False])
async def test_repack_moves_them_as_they_are(
    root: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    files = samples()
    await fill(root, files)
    before = {name: entry_of(root, one) for name, one in objects(root).items()}
    with monkeypatch.context() as patch:
        if not there:
            without(patch)
        opened = open_store(root)
        async with opened.running(count=1) as store:
            inode = store.index.lookup(ROOT, b"0.jpg")
            assert inode is not None
            store.index.unlink(ROOT, b"0.jpg", 1)
            store.index.purge(inode.ino)
            summary = await store.repack(lambda count: None)
        opened.close()
    assert (summary.problems, summary.dropped) == ([], 1)
    del files[b"0.jpg"]
    assert await read(root) == files
    for name in (b"1.jpg", b"2.jpg", b"3.jpg"):
        assert entry_of(root, objects(root)[name]) == before[name]


async def test_an_estimate_knows_that_jpegs_get_smaller(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, frame in enumerate(screens(20, height=300, width=400)):
        (source / f"{number:02d}.png").write_bytes(png(frame))
    for number in range(12):
        data = photos.jpeg(photos.scene(number, 300 + 40 * number, 300), quality=90)
        (source / f"{number}.JPG").write_bytes(data)
    (source / "notes.txt").write_text("no picture")
    found = await estimate(source, 60, lambda files, count: None)
    assert (found.pictures, found.sampled, found.jpegs, found.jpegs_sampled) == (20, 20, 12, 12)
    assert 0.6 < found.jpeg_share < 0.95
    await import_into(root, f"{source}/")
    store = open_read_store(root)
    taken = store.stats()["stored_bytes"]
    store.close()
    assert abs(found.stored_bytes / taken - 1) < 0.1
    assert found.low < taken < found.high
    monkeypatch.setattr(estimating, "_MOST_JPEGS", 4)
    found = await estimate(source, 60, lambda files, count: None)
    assert found.jpegs_sampled == 4
    assert found.low < taken < found.high
    without(monkeypatch)
    raw = await estimate(source, 60, lambda files, count: None)
    assert (raw.jpegs, raw.jpeg_share) == (0, 1.0)
    assert raw.stored_bytes > found.stored_bytes
