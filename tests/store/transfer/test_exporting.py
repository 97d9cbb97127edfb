"""Export: files come out as they went in, and export overwrites no file of the user."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsmount.errors import DiskFull, FsmountError
from fsmount.store.layout import Layout
from fsmount.store.read_store import ReadStore
from fsmount.store.store import open_read_store
from fsmount.store.transfer.exporting import Exporter, below
from fsmount.store.transfer.tree import find
from tests.support.packs import drop_parity
from tests.support.trees import export_from, facts, import_into


@contextmanager
def raises(kind: type[Exception], text: str = "") -> Iterator[None]:
    """Like pytest.raises, but looks into the exception groups of nurseries.

    Several tasks may fail at the same time, all in the same way.
    """
    with pytest.raises(ExceptionGroup) as caught:
        yield
    errors: list[Exception] = [caught.value]
    while isinstance(errors[0], ExceptionGroup):
        errors = [*errors[1:], *errors[0].exceptions]
    assert all(isinstance(error, kind) and text in str(error) for error in errors)


def scratch_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".fsmount-*"))


async def damage(root: Path, path: bytes) -> None:
    """Flip a byte of the entry that a file needs most: its own entry. Nothing gives it back."""
    drop_parity(root)
    store = open_read_store(root)
    inode = find(store, path)
    assert inode is not None and inode.object_id is not None
    found = store.index.object(inode.object_id)
    pack = Layout(root).pack(found.pack)
    store.close()
    data = bytearray(pack.read_bytes())
    data[found.offset + found.length - 1] ^= 1
    pack.write_bytes(data)


# Export (test_importing tests that everything comes back)


async def test_again_skips_all_and_repairs_folders(
    root: Path, source: Path, tmp_path: Path
) -> None:
    await import_into(root, f"{source}/")
    out = tmp_path / "out"
    first = await export_from(root, out)
    (out / "desk").chmod(0o700)
    again = await export_from(root, out)
    assert (again.summary.files, again.summary.problems) == (0, [])
    assert again.summary.skipped == first.summary.files
    assert facts(out) == facts(source)


async def test_new_files_are_named_in_the_order_of_their_paths(
    root: Path, source: Path, tmp_path: Path
) -> None:
    await import_into(root, f"{source}/")
    named: list[bytes] = []
    with open_read_store(root) as opened:
        files = [name for name, inode in below(opened, b"") if not stat.S_ISDIR(inode.mode)]
        async with opened.running(count=3) as store:
            out = tmp_path / "out"
            exporter = Exporter(store, out, lambda *_: None, force=False, report=named.append)
            await exporter.export(b"")
    assert named == files


async def test_files_that_are_there_are_not_rendered(
    root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_into(root, f"{source}/")
    out = tmp_path / "out"
    await export_from(root, out)

    async def rendered(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ReadStore, "render", rendered)
    monkeypatch.setattr(ReadStore, "body", rendered)
    again = await export_from(root, out)
    assert (again.summary.files, again.summary.problems) == (0, [])


async def test_paths(root: Path, source: Path, tmp_path: Path) -> None:
    await import_into(root, source)
    out = tmp_path / "out"
    await export_from(root, out, b"in/desk/2024 June/01.png", b"in/empty", b"in/caf\xe9.txt")
    assert sorted(facts(out)) == sorted(
        [
            b"in",
            b"in/desk",
            b"in/desk/2024 June",
            b"in/desk/2024 June/01.png",
            b"in/empty",
            b"in/caf\xe9.txt",
        ]
    )
    with raises(FsmountError, "there is no 'in/nothing' in"):
        await export_from(root, out, b"in/nothing")


async def test_nothing_is_overwritten_unless_forced(
    root: Path, source: Path, tmp_path: Path
) -> None:
    await import_into(root, f"{source}/")
    out = tmp_path / "out"
    (out / "desk" / "2024 June").mkdir(parents=True)
    mine = out / "desk" / "2024 June" / "01.png"
    mine.write_text("mine")
    (out / "link").symlink_to("elsewhere")
    (out / "zero").mkdir()
    (out / "zero" / "full").touch()
    (out / "locked").write_text("a file")
    done = await export_from(root, out)
    there = "something else of this name is there; --force replaces it"
    assert dict(done.summary.problems) == {
        str(mine): there,
        str(out / "link"): there,
        str(out / "zero"): there,
        str(out / "locked"): "File exists",
        str(out / "locked" / "inside"): "File exists",
    }
    assert mine.read_text() == "mine"
    assert (out / "link").readlink() == Path("elsewhere")
    assert (out / "desk" / "2024 June" / "02.png").exists()
    forced = await export_from(root, out, force=True)
    assert {path for path, _ in forced.summary.problems} == {
        str(out / "zero"),
        str(out / "locked"),
        str(out / "locked" / "inside"),
    }
    assert scratch_files(out) == []
    (out / "zero" / "full").unlink()
    (out / "zero").rmdir()
    (out / "locked").unlink()
    assert (await export_from(root, out)).summary.problems == []
    assert facts(out) == facts(source)


async def test_a_file_that_is_damaged_keeps_no_other_back(
    root: Path, source: Path, tmp_path: Path
) -> None:
    await import_into(root, f"{source}/")
    await damage(root, b"desk/2024 June/00.png")
    out = tmp_path / "out"
    done = await export_from(root, out)
    names = {str(out / "again.png"), *(str(out / f"desk/2024 June/{n:02d}.png") for n in range(3))}
    bad = dict(done.summary.problems)
    assert str(out / "again.png") in bad
    assert str(out / "desk/2024 June/00.png") in bad
    assert bad.keys() <= names
    assert all("damaged" in why for why in bad.values())
    left = facts(out)
    assert left.keys() == {
        name for name in facts(source) if str(out / os.fsdecode(name)) not in bad
    }
    assert scratch_files(out) == []


async def test_goes_on_after_a_kill(root: Path, source: Path, tmp_path: Path) -> None:
    """A scratch file was left. The next export overwrites it."""
    await import_into(root, f"{source}/")
    out = tmp_path / "out"
    steps = 0

    class KilledError(BaseException):
        pass

    def killed(files: int, count: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KilledError

    opened = open_read_store(root)
    async with opened.running(count=1) as store:
        exporter = Exporter(store, out, killed, force=False)
        with pytest.raises(BaseExceptionGroup):
            await exporter.export(b"")
    inode = find(opened, "grün.bin".encode())
    assert inode is not None
    opened.close()
    scratch = out / f"{exporter._scratch}{inode.ino}"
    (out / "grün.bin").unlink(missing_ok=True)
    scratch.write_text("half")
    assert facts(out).keys() - {os.fsencode(scratch.name)} < facts(source).keys()
    assert scratch_files(out) == [scratch]
    assert (await export_from(root, out)).summary.problems == []
    assert facts(out) == facts(source)


async def test_a_disk_that_fills_up(
    root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_into(root, f"{source}/")
    out = tmp_path / "out"

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "utime", full)
    with raises(DiskFull):
        await export_from(root, out)
    assert scratch_files(out) == []
    assert not [path for path in out.rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_write_that_is_cut_short_is_no_success(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(os.urandom(50_000))
    await import_into(root, f"{tmp_path}/in/")
    real = os.open

    def to_a_full_disk(path: Path, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            return real(path, flags, mode)
        os.close(real(path, flags, mode))
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", to_a_full_disk)
    with raises(DiskFull):
        await export_from(root, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


async def test_attributes_that_the_disk_does_not_take(
    root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_into(root, f"{source}/")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    done = await export_from(root, tmp_path / "out")
    assert ("empty", "attribute user.of.a.folder: Operation not supported") in done.summary.problems
    assert facts(tmp_path / "out").keys() == facts(source).keys()
