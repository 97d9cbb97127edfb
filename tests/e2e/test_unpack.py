"""contrib/unpack.py returns all files of a real store without the package installed."""

from __future__ import annotations

import hashlib
import io
import os
import random
import runpy
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from PIL import Image

from fsmount.codec.delta import record
from fsmount.codec.images import jpeg, jxl
from fsmount.codec.png.png import parse
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Object
from fsmount.store.index.schema import schema
from fsmount.store.packs.entries import _PNG_ARRAYS, DICTIONARY, FileFacts, raw_entry
from fsmount.store.packs.pack import build_entry
from fsmount.store.store import open_read_store, open_store
from tests.e2e.unpacking import (
    DRIVER,
    MTIME,
    SCRIPT,
    Files,
    jpegs,
    kinds,
    make,
    others,
    screens,
    screenshots,
    unpack,
)
from tests.support import animations
from tests.support.frames import png, scrolled
from tests.support.repacking import always_pays


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Files]:
    """A store with files of all kinds, and its files. Tests must not change it."""
    root = tmp_path_factory.mktemp("whole") / "store"
    large = bytearray(33 << 20)
    large[5 << 20 : (5 << 20) + 9] = b"something"
    pages = {b"pages/%d.png" % number: png(page) for number, page in enumerate(scrolled(3))}
    files = (
        pages
        | screenshots()
        | screens()
        | kinds()
        | others()
        | jpegs()
        | {b"video.mp4": bytes(large)}
    )
    return make(root, files)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Files]:
    """A store with small screens and texts, and its files. Tests must not change it."""
    return make(tmp_path_factory.mktemp("small") / "store", screens() | others())


@pytest.fixture
def copied(small: tuple[Path, Files], tmp_path: Path) -> Path:
    """A copy of the store of `small` that a test may damage."""
    return Path(shutil.copytree(small[0], tmp_path / "store"))


def _packs(store: Path) -> list[Path]:
    return sorted((store / "packs").glob("*.zip"))


def _objects(store: Path) -> dict[int, tuple[Object, list[bytes]]]:
    """Every object that is no dictionary, and the paths that show it."""
    opened = open_read_store(store)
    try:
        rows = opened.index
        objects = (found for found in rows.all_objects() if found.kind != DICTIONARY)
        return {found.id: (found, rows.names_of(found.id)) for found in objects}
    finally:
        opened.close()


def _records(store: Path, files: Files) -> Files:
    """The files that the packs alone give. Of files that share an object only the first."""
    wanted, seen = {}, set()
    for path, data in files.items():
        if data not in seen:
            wanted[path] = data
        seen.add(data)
    assert len(wanted) == len(_objects(store))
    return wanted


def test_the_index_gives_the_tree_as_it_was(whole: tuple[Path, Files], tmp_path: Path) -> None:
    store, files = whole
    kinds = {found.kind for found, _ in _objects(store).values()}
    assert kinds == {"key", "delta", "raw"} | ({"jpeg"} if jpeg.available() else set())
    before = _state(store)
    result = unpack(store, tmp_path / "out")
    assert result.lines == [f"{len(files) + 2} files, 0 not exact or damaged"]
    assert result.code == 0
    names = {b"deep/empty folder/hard link": files[b"notes.txt"], b"staged.png": b"not encoded yet"}
    assert result.files() == files | names
    out = result.dest
    for number, path in enumerate(files):
        found = (out / os.fsdecode(path)).stat()
        assert (found.st_mtime_ns, stat.S_IMODE(found.st_mode)) == (MTIME + number, 0o640), path
    assert (out / "notes.txt").samefile(out / "deep/empty folder/hard link")
    assert (out / "link").readlink() == Path("../../etc/passwd")
    assert (out / "deep").stat().st_mtime_ns == MTIME + 5
    assert stat.S_IMODE((out / "deep/empty folder").stat().st_mode) == 0o750
    assert _state(store) == before


def _state(store: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in store.rglob("*")}


def test_the_packs_alone_give_every_file(whole: tuple[Path, Files], tmp_path: Path) -> None:
    store, files = whole
    wanted = _records(store, files)
    result = unpack(store / "packs", tmp_path / "out")
    assert result.lines == [f"{len(wanted)} files, 0 not exact or damaged"]
    assert result.code == 0
    assert result.files() == wanted
    for number, path in enumerate(files):
        if path in wanted:
            found = (tmp_path / "out" / os.fsdecode(path)).stat()
            assert found.st_mtime_ns == MTIME + number


def test_jpegs_need_one_of_two_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not jpeg.available():
        pytest.skip("imagecodecs is not installed")
    store, files = make(tmp_path / "store", jpegs() | {b"notes.txt": b"notes"})
    if shutil.which("djxl") is not None:
        result = unpack(store / "packs", tmp_path / "out", "imagecodecs")
        assert (result.code, result.files()) == (0, files)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = unpack(store / "packs", tmp_path / "less", "imagecodecs")
    assert (result.code, result.files()) == (1, {b"notes.txt": b"notes"})
    assert all("needs imagecodecs or djxl" in line for line in result.lines[:-1])
    assert result.damaged() == jpegs().keys()


def test_the_script_alone_reads_correction_records(tmp_path: Path) -> None:
    store, files = make(
        tmp_path / "store",
        {b"notes.txt": b"notes", b"flushed.png": kinds()[b"kinds/flushed.png"]},
    )
    by_name = {names[0]: found.kind for found, names in _objects(store).values()}
    assert by_name[b"flushed.png"] == "key"
    (tmp_path / "alone").mkdir()
    script = Path(shutil.copy(SCRIPT, tmp_path / "alone"))
    result = unpack(store / "packs", tmp_path / "out", script=script)
    assert (result.code, result.files()) == (0, files)


def test_what_repack_writes_is_read(
    copied: Path, small: tuple[Path, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_pays(monkeypatch)

    async def repack() -> None:
        opened = open_store(copied)
        async with opened.running() as store:
            assert (await store.repack(lambda count: None)).moved
        opened.close()

    (old,) = _packs(copied)
    before = old.read_bytes()
    trio.run(repack)
    assert old not in _packs(copied)
    wanted = _records(*small) | {b"staged.png": b"not encoded yet"}
    results = [unpack(copied, tmp_path / "tree"), unpack(copied / "packs", tmp_path / "out")]
    # The state after a kill before repack removed the old pack.
    old.write_bytes(before)
    results.append(unpack(copied / "packs", tmp_path / "again"))
    assert wanted.items() <= results[0].files().items()
    for result in results[1:]:
        assert result.lines == [f"{len(wanted)} files, 0 not exact or damaged"]
        assert result.files() == wanted
    assert [result.code for result in results] == [0, 0, 0]


def test_a_log_that_was_not_folded_in_is_read(copied: Path, tmp_path: Path) -> None:
    store = open_store(copied)
    store.index.rename(ROOT, b"notes.txt", ROOT, b"renamed.txt", 1)
    crashed = Path(shutil.copytree(copied, tmp_path / "crashed"))
    store.close()
    assert (crashed / "index.sqlite-wal").stat().st_size
    result = unpack(crashed, tmp_path / "out")
    assert result.code == 0
    assert (tmp_path / "out/renamed.txt").exists()
    assert not (tmp_path / "out/notes.txt").exists()


def test_a_ruined_index_is_done_without(
    copied: Path, small: tuple[Path, Files], tmp_path: Path
) -> None:
    data = bytearray((copied / "index.sqlite").read_bytes())
    data[4096:12288] = random.Random(1).randbytes(8192)
    (copied / "index.sqlite").write_bytes(data)
    result = unpack(copied, tmp_path / "out")
    assert result.lines[0].startswith("index.sqlite: ")
    assert result.files() == _records(*small)


def test_a_pack_without_central_directory(
    copied: Path, small: tuple[Path, Files], tmp_path: Path
) -> None:
    (pack,) = _packs(copied)
    entries = max(found.offset + found.length for found, _ in _objects(copied).values())
    data = pack.read_bytes()
    assert data[entries:].startswith(b"PK\1\2")
    # A crash leaves a partial entry, a power cut leaves zeros.
    for number, rest in enumerate((b"", data[:100], bytes(1000))):
        pack.write_bytes(data[:entries] + rest)
        result = unpack(copied / "packs", tmp_path / f"out{number}")
        assert result.code == 0
        assert result.files() == _records(*small)
    assert result.lines[0] == f"{pack.name}: left out an unfinished end of 1000 bytes"


def test_no_jpeg_xl_decoder_is_needed_without_jxl(copied: Path, tmp_path: Path) -> None:
    members = zipfile.ZipFile(_packs(copied)[0]).namelist()
    assert not any(name.endswith(".jxl") for name in members)
    assert unpack(copied, tmp_path / "out", "jxlpy", "imagecodecs").code == 0


@pytest.mark.parametrize(("there", "missing"), [("jxlpy", "imagecodecs"), ("imagecodecs", "jxlpy")])
def test_either_decoder_reads_jxl(
    whole: tuple[Path, Files], tmp_path: Path, there: str, missing: str
) -> None:
    pytest.importorskip(there)
    store, files = whole
    result = unpack(store / "packs", tmp_path / "out", missing)
    assert (result.code, result.files()) == (0, _records(store, files))


def _middle(found: Object, data: bytes) -> int:
    """An offset inside the payload."""
    return found.offset + found.length - 3


def _record(found: Object, data: bytes) -> int:
    """An offset inside the stored record."""
    return data.index(b"FM", found.offset) + 40


def _anchor(found: Object, data: bytes) -> int:
    return data.index(b"FM", found.offset) + 5


def _crc(found: Object, data: bytes) -> int:
    return found.offset + 14


def _magic(found: Object, data: bytes) -> int:
    return found.offset


def _length(found: Object, data: bytes) -> int:
    return found.offset + 23


def _name(found: Object, data: bytes) -> int:
    """The offset of a digit of the id in the entry's name."""
    return found.offset + 37


def test_damage_at_the_end_is_no_unfinished_end(copied: Path, tmp_path: Path) -> None:
    (pack,) = _packs(copied)
    last = max(_objects(copied).values(), key=lambda pair: pair[0].offset)[0]
    data = bytearray(pack.read_bytes())
    data[last.offset] ^= 1
    pack.write_bytes(data)
    assert unpack(copied / "packs", tmp_path / "out").code == 1


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *(("key", place) for place in (_middle, _record, _anchor, _crc, _magic, _length, _name)),
        *(("delta", place) for place in (_middle, _record, _anchor)),
        *(("raw", place) for place in (_middle, _length, _name)),
    ],
)
def test_a_flipped_bit_costs_what_rests_on_it(
    copied: Path,
    small: tuple[Path, Files],
    tmp_path: Path,
    kind: str,
    place: Callable[[Object, bytes], int],
) -> None:
    files = small[1]
    objects = _objects(copied)
    victim = next(o for o, names in objects.values() if o.kind == kind and o.size > 0)
    (pack,) = _packs(copied)
    data = bytearray(pack.read_bytes())
    data[place(victim, bytes(data))] ^= 4
    pack.write_bytes(data)
    lost = {
        path
        for found, names in objects.values()
        if victim.id in (found.id, *found.needs)
        for path in names
    }
    assert lost
    assert kind != "key" or len(lost) > 2
    if place is _name:  # the index has the right name
        lost = set()
    result = unpack(copied, tmp_path / "out")
    assert result.code == bool(lost)
    assert result.damaged() == lost
    kept = {path: body for path, body in result.files().items() if path in files}
    assert kept == {path: body for path, body in files.items() if path not in lost}

    alone = unpack(copied / "packs", tmp_path / "alone")
    given = {path: body for path, body in alone.files().items() if b".not-exact" not in path}
    assert given.items() <= files.items()
    # The record of an entry still names the file if the name of the entry is damaged.
    intact = {path for path in _records(*small) if path not in lost}
    assert given.keys() >= intact - {path for path in intact if place is _name}
    # A raw file with another id in the name of its entry loses nothing.
    assert alone.code == 1 or (place is _name and given.keys() >= intact)


def test_a_damaged_large_file_is_given_apart(whole: tuple[Path, Files], tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(whole[0], store)
    (kept,) = (store / "raw").iterdir()
    with kept.open("r+b") as file:
        file.seek((5 << 20) + 2)
        file.write(b"!")
    result = unpack(store, tmp_path / "out")
    assert result.code == 1
    assert result.damaged() == {b"video.mp4"}
    assert (tmp_path / "out/video.not-exact.mp4").exists()


def test_names_stay_inside_and_apart(tmp_path: Path) -> None:
    packs = tmp_path / "packs"
    packs.mkdir()
    paths = ["/etc/x", "../../y", "a/../b", "", "..", "f", "f/g", "n\0n", "same", "same", "\udcff"]
    bodies = [b"%d" % number for number in range(len(paths))]
    entries = [
        raw_entry(
            FileFacts(number, path, number, hashlib.sha256(body).digest(), len(body)), "", body
        )
        for number, (path, body) in enumerate(zip(paths, bodies, strict=True), start=1)
    ]
    (packs / "00000001.zip").write_bytes(b"".join(map(build_entry, entries)))
    outside = {*tmp_path.parent.iterdir(), *tmp_path.iterdir()}
    result = unpack(packs, tmp_path / "out" / "dest")
    assert result.code == 0
    assert {*tmp_path.parent.iterdir(), *tmp_path.iterdir()} == outside | {tmp_path / "out"}
    assert list((tmp_path / "out").iterdir()) == [result.dest]
    assert result.files() == {
        b"etc/x": b"0",
        b"y": b"1",
        b"a/b": b"2",
        b"unnamed.00000004": b"3",
        b"unnamed": b"4",
        b"f.00000006": b"5",
        b"f/g": b"6",
        b"n_n": b"7",
        b"same.00000009": b"8",
        b"same": b"9",
        b"\xff": b"10",
    }


def test_links_are_not_followed(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/screens").symlink_to(target)
    result = subprocess.run(
        [sys.executable, "-I", SCRIPT, copied, tmp_path / "out"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"is not empty" in result.stderr
    assert result.returncode == 1
    assert not any(target.iterdir())
    # A manipulated index: its names lead out of their folder.
    with sqlite3.connect(copied / "index.sqlite") as db:
        db.execute("UPDATE dirents SET name = ? WHERE name = ?", (b"../x", b"link"))
        db.execute("UPDATE dirents SET name = ? WHERE name = ?", (b"..", b"deep"))
    db.close()
    assert unpack(copied, tmp_path / "second").code == 0
    assert (tmp_path / "second/.._x").is_symlink()
    assert (tmp_path / "second/empty folder/hard link").exists()


def test_other_formats_are_refused(copied: Path, tmp_path: Path) -> None:
    path = copied / "fsmount.json"
    path.write_bytes(path.read_bytes().replace(b'"format": 2', b'"format": 4'))
    with pytest.raises(AssertionError, match="knows formats 1 to 3 only"):
        unpack(copied, tmp_path / "out")


def test_what_is_written_down_is_what_is_used() -> None:
    text = (SCRIPT.parents[1] / "docs" / "format.md").read_text()
    assert record.DICTIONARY.decode() in text.splitlines()
    assert hashlib.sha256(record.DICTIONARY).hexdigest() in text
    assert runpy.run_path(str(SCRIPT))["DICTIONARY"] == record.DICTIONARY
    made = sqlite3.connect(":memory:")
    for statement in schema():
        made.execute(statement)
    tables = made.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        if table != "sqlite_sequence":
            # The database of words, further down, has a table of the same name.
            row = next(line for line in text.splitlines() if line.startswith(f"| `{table}` |"))
            columns = made.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
            assert all(f"`{column}`" in row for (column,) in columns), table
    made.close()


def _pictures(store: Path) -> Iterator[tuple[str, bytes]]:
    for pack in _packs(store):
        with zipfile.ZipFile(pack) as opened:
            assert opened.testzip() is None
            for name in opened.namelist():
                yield name, opened.read(name)


def test_packs_are_zips_of_pictures(whole: tuple[Path, Files]) -> None:
    suffixes = set()
    for name, data in _pictures(whole[0]):
        suffix = Path(name).suffix
        suffixes.add(suffix)
        if suffix == ".webp":
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
                assert picture.format == "WEBP"
        elif suffix == ".jxl":
            assert jxl.read(data).size
    assert suffixes >= {".webp", ".jxl", ".txt", ".sums", ".png", ".bin"}


@pytest.mark.skipif(not shutil.which("unzip"), reason="no unzip here")
def test_unzip_accepts_every_pack(whole: tuple[Path, Files], tmp_path: Path) -> None:
    config.make(tmp_path / "new", Disk())
    open_store(tmp_path / "new").close()
    for pack in [*_packs(whole[0]), *_packs(tmp_path / "new")]:
        subprocess.run(["unzip", "-tqq", pack], check=True, timeout=60)


def _without_packages(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script where Python has its standard library alone."""
    return subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_needs_no_package(option: str) -> None:
    done = _without_packages(option)
    assert (done.returncode, done.stderr) == (0, "")
    for needed in ("python3 unpack.py STORE DEST", "numpy and Pillow", "imagecodecs", "djxl"):
        assert needed in done.stdout


@pytest.mark.parametrize("blocked", ["numpy", "PIL"])
def test_a_missing_package_is_named(blocked: str, copied: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", DRIVER, blocked, SCRIPT, copied, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert blocked in done.stderr
    assert "apt-get install python3-numpy python3-pil" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_installed_is_one_sentence(tmp_path: Path) -> None:
    done = _without_packages(tmp_path / "store", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("No module named 'numpy'. This script needs numpy and Pillow: ")
    assert done.stderr.count("\n") == 1


@given(animations.animations())
@settings(deadline=None, max_examples=40)
def test_every_animation_comes_back(made: animations.Animation) -> None:
    data = animations.build(made)
    recipe = parse(data).recipe
    header, arrays = recipe.header(), dict(zip(_PNG_ARRAYS, recipe.blobs(), strict=True))
    again = runpy.run_path(str(SCRIPT))["png"](parse(data).frame, header, arrays)
    assert again == data
