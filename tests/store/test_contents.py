"""Missing folders of a store, and files that other programs put into its folders."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.recovery.repair import Repairs
from fsmount.store.store import open_read_store, open_store
from tests.repairing import repair
from tests.support.encoding import forget_caches, get, open_either, put, samples, settled
from tests.support.paths import CHECKOUT

pytestmark = pytest.mark.usefixtures("inline", "small_limits")

FOLDERS = ("packs", "staging", "raw")
# Names from NAS systems, disks, desktops, NFS and sync tools, and names like those of fsmount.
FOREIGN_FOLDERS = (
    "@eaDir",
    ".Trash-1000",
    "lost+found",
    ".stfolder",
    "17",
    "00000099.zip",
    "000000aa",
)
FOREIGN_FILES = (
    ".DS_Store", "desktop.ini", "Thumbs.db", ".nfs000000000001", "._00000001.zip", "readme.zip",
    "00000001.zip.partial", ".syncthing.00000001.zip.tmp", "00000001 (conflicted copy).zip",
    "1.zip", "000000001.zip", "\uff100000001.zip", "²", "²²²²²²²².zip", "007", "0", "2a",
    "0000002A",
    "0000002a.tmp", "caf\udce9", "two\nlines",
)  # fmt: skip


def litter(root: Path) -> dict[str, bytes | None]:
    """Put all foreign names into every folder. Returns the foreign files that are there then."""
    for name in FOLDERS:
        for other in FOREIGN_FOLDERS:
            (root / name / other).mkdir()
            (root / name / other / "inside").write_text("not yours")
        for other in FOREIGN_FILES:
            (root / name / other).write_bytes(b"not yours")
        (root / name / "dangling").symlink_to("nowhere")
        os.mkfifo(root / name / "pipe")
    return foreign(root)


def foreign(root: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for name in FOLDERS:
        for other in (*FOREIGN_FOLDERS, *FOREIGN_FILES, "dangling", "pipe"):
            path = root / name / other
            assert path.is_symlink() or path.exists(), path
            found[f"{name}/{other}"] = path.read_bytes() if path.is_file() else None
            if path.is_dir():
                assert (path / "inside").read_text() == "not yours"
    return found


@pytest.fixture
def files() -> dict[bytes, bytes]:
    return samples() | {b"large": os.urandom(9000)}


async def fill(root: Path, files: dict[bytes, bytes]) -> None:
    opened = open_store(root)
    try:
        async with opened.running(count=1) as store:
            for name, data in files.items():
                put(store, name, data)
            await settled(store, files)
    finally:
        opened.close()


async def looked(root: Path, files: dict[bytes, bytes], *, read_only: bool = True) -> Report:
    """Check that every file is there. Returns the report of `check --full`."""
    forget_caches()
    opened = open_either(root, read_only=read_only)
    try:
        async with opened.running(count=1) as store:
            found = {path: await get(store, node.ino) for path, node in store.index.walk()}
            assert found == files
            report = check_relations(store)
            await check_contents(store, report, lambda count: None)
            return report
    finally:
        opened.close()


async def repaired(root: Path) -> Repairs:
    repairs, report = await repair(root)
    assert report.findings == []
    return repairs


async def test_what_others_put_there_is_left_alone(root: Path, files: dict[bytes, bytes]) -> None:
    others = litter(root)
    await fill(root, files)
    assert foreign(root) == others
    report = await looked(root, files, read_only=False)
    assert report.findings == []
    assert [what for what, _ in report.notices] == sorted(others, key=lambda name: (
        FOLDERS.index(name.partition("/")[0]), name
    ))  # fmt: skip
    assert {why for _, why in report.notices} == {"not made by fsmount; it is left alone"}
    opened = open_store(root)
    assert opened.stats()["packs"] == 1
    async with opened.running(count=1) as store:
        await store.repack(lambda count: None)
        await store.reclaim(1 << 60)
    opened.close()
    assert foreign(root) == others
    assert (await looked(root, files)).findings == []
    assert not Layout(root).lost.exists()


async def test_nor_by_an_index_that_is_not_the_newest(
    root: Path, files: dict[bytes, bytes]
) -> None:
    open_store(root).close()
    old = (root / "index.sqlite").read_bytes()
    await fill(root, files)
    large = os.listdir(root / "raw")
    others = litter(root)
    (root / "index.sqlite").write_bytes(old)
    open_store(root).close()
    assert foreign(root) == others
    kept = {path.name.rpartition("-")[0] for path in (root / "lost").iterdir()}
    assert kept == {f"raw-{name}" for name in large} | {"packs-00000001.zip"}


@pytest.mark.parametrize("damage", ["index", "copy too", "nothing"])
async def test_repair_leaves_it_alone(root: Path, files: dict[bytes, bytes], damage: str) -> None:
    await fill(root, files)
    others = litter(root)
    if damage != "nothing":
        (root / "index.sqlite").unlink()
    if damage == "copy too":
        (root / "packs" / "names.gz").unlink()
    repairs = await repaired(root)
    assert repairs.lost == []
    assert foreign(root) == others
    report = await looked(root, files)
    assert report.findings == []


async def test_unpack_leaves_it_out(root: Path, files: dict[bytes, bytes], tmp_path: Path) -> None:
    await fill(root, files)
    litter(root)
    script = CHECKOUT / "contrib" / "unpack.py"
    for number, source in enumerate((root, root / "packs")):
        out = tmp_path / f"out{number}"
        command = [sys.executable, str(script), str(source), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {os.fsencode(path.name): path.read_bytes() for path in out.iterdir()} == files


async def test_repair_finds_staged_files_among_others(root: Path) -> None:
    store = open_store(root)
    token = store.index.inode(put(store, b"a", b"staged")).staged
    store.close()
    others = litter(root)
    (root / "index.sqlite").unlink()
    (root / "packs" / "names.gz").unlink(missing_ok=True)
    assert (await repaired(root)).renamed == [f"lost+found/staged-{token}"]
    assert foreign(root) == others


async def test_a_socket_or_a_folder_is_never_opened_as_a_pack(root: Path) -> None:
    os.mknod(root / "packs" / "00000007.zip", stat.S_IFSOCK | 0o600)
    (root / "packs" / "00000008.zip").mkdir()
    (root / "index.sqlite").unlink()
    assert (await repaired(root)).lost == []
    assert {path.name for path in (root / "packs").glob("*7.zip")} == {"00000007.zip"}


async def test_our_own_leftovers_still_go(root: Path, files: dict[bytes, bytes]) -> None:
    await fill(root, files)
    ours = [
        root / "staging" / "123",
        root / "raw" / "0000ffff",
        root / "packs" / "00000042.zip",
        root / "packs" / "123456789.zip",
        root / "packs" / "names.gz.new",
    ]
    for path in ours:
        path.write_bytes(b"left over")
    open_store(root).close()
    assert not [path for path in ours if path.exists()]
    assert (await looked(root, files)).findings == []


# -- missing folders


@pytest.fixture(params=["staging", "raw", "packs", "all"])
def missing(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return FOLDERS if request.param == "all" else (request.param,)


def drop(root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (root / name).rmdir()


async def test_empty_folders_are_made_again(
    root: Path, files: dict[bytes, bytes], missing: tuple[str, ...]
) -> None:
    drop(root, missing)
    forced: list[Path] = []

    class Listening(Disk):
        def fsync_folder(self, path: Path) -> None:
            forced.append(path.resolve())
            super().fsync_folder(path)

    open_store(root, disk=Listening()).close()
    assert forced[0] == root, "a power cut must not take them"
    for name in missing:
        assert (root / name).stat().st_mode & 0o777 == 0o700
    await fill(root, files)
    assert (await looked(root, files)).notices == []


async def test_missing_folders_are_empty_to_a_reader(root: Path, missing: tuple[str, ...]) -> None:
    drop(root, missing)
    report = await looked(root, {})
    assert report.findings == []
    assert [what for what, _ in report.notices] == [name for name in FOLDERS if name in missing]
    store = open_read_store(root)
    assert store.stats()["files"] == 0
    store.close()
    assert not [name for name in missing if (root / name).exists()]


@pytest.mark.parametrize("names", [("staging",), ("raw",), ("staging", "raw")])
async def test_a_store_with_pictures_without_its_empty_folders(
    root: Path, names: tuple[str, ...]
) -> None:
    files = {name: data for name, data in samples().items() if len(data) < 5000}
    await fill(root, files)
    drop(root, names)
    assert (await looked(root, files)).findings == []
    assert (await repaired(root)) == Repairs()
    assert (await looked(root, files, read_only=False)).notices == []


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("index", [True, False])
async def test_a_folder_that_had_files_is_not_made_again(
    root: Path, files: dict[bytes, bytes], name: str, index: bool
) -> None:
    """Perhaps the disk of the folder is not mounted. Then a repair would give up all its files."""
    await fill(root, files)
    if name == "staging":
        store = open_store(root)
        put(store, b"staged", b"x")
        store.close()
    shutil.rmtree(root / name)
    if not index:
        (root / "index.sqlite").unlink()
    for opening in (lambda: open_store(root).close(), lambda: trio.run(repaired, root)):
        if not index:
            break
        with pytest.raises(Damaged, match=f"^{root / name} is damaged: the folder is missing"):
            await trio.to_thread.run_sync(opening)
        assert not (root / name).exists()
    if not index and name != "staging":
        with pytest.raises(Damaged, match=f"^{root / name} is damaged: the folder is missing"):
            await repaired(root)
        assert not (root / name).exists()
    if index:
        (root / name).mkdir()
        open_store(root).close()


def test_a_file_in_place_of_a_folder_is_named(root: Path) -> None:
    (root / "raw").rmdir()
    (root / "raw").write_bytes(b"")
    with pytest.raises(FileExistsError) as raised:
        open_store(root)
    assert str(raised.value.filename).endswith("/raw")
    assert (root / "raw").is_file()


# -- the command line


@pytest.fixture
def run(root: Path) -> Iterator[object]:
    def command(*arguments: str, code: int = 0) -> tuple[str, str]:
        whole = [sys.executable, "-m", "fsmount", *arguments, str(root)]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "/proc/" not in done.stdout + done.stderr
        return done.stdout, done.stderr

    yield command


def test_check_says_what_it_saw(run: object, root: Path) -> None:
    assert callable(run)
    (root / "raw").rmdir()
    (root / "packs" / "@eaDir").mkdir()
    (root / "staging" / ".DS_Store").touch()
    words, notices = run("check")
    assert words.endswith("no damage found\n")
    assert notices == (
        "  notice: packs/@eaDir: not made by fsmount; it is left alone\n"
        "  notice: staging/.DS_Store: not made by fsmount; it is left alone\n"
        "  notice: raw: the folder is missing; if it was empty, the next start for writing makes"
        " it\n"
    )
    found = json.loads(run("check", "--full", "--json")[0])
    assert [each["what"] for each in found["notices"]] == [
        "packs/@eaDir", "staging/.DS_Store", "raw",
    ]  # fmt: skip
    assert found["findings"] == []
    repaired = json.loads(run("check", "--repair", "--json")[0])
    assert [each["what"] for each in repaired["notices"]] == ["packs/@eaDir", "staging/.DS_Store"]
    assert (root / "raw").is_dir()
    for name in ("repack", "stats", "ls"):
        run(name)


def test_our_names_are_told_from_others(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    config.make(tmp_path, Disk())
    index = Index(layout.index, Disk())
    contents.make_folders(layout, index, Disk())
    index.close()
    for path in (
        layout.pack(1),
        layout.parity(1),
        layout.pack(123_456_789),
        layout.kept(1),
        layout.kept(2**32 - 1),
    ):
        path.touch()
    layout.parity(1).touch()
    for path in (layout.names_copy, layout.second_entries, layout.staging / "1"):
        path.touch()
    assert list(contents.notices(layout)) == []
