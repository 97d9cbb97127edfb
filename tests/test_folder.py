"""A folder that is reached through its descriptor, and its path in messages."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.errors import Damaged, FsmountError
from fsmount.folder import Folder, open_numbers, readable
from fsmount.mount.log import log_to
from fsmount.work.workers import Workers


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("ours")
    return tmp_path / "here"


@pytest.fixture
def folder(place: Path) -> Iterator[Folder]:
    opened = Folder(place)
    yield opened
    if opened.is_open:
        opened.close()


def replace(place: Path) -> Path:
    """Move the folder away and put another one in its place. Returns the new path of the first."""
    moved = place.with_name("there")
    place.rename(moved)
    place.mkdir()
    (place / "file").write_text("another's")
    return moved


def test_its_path_leads_to_it_wherever_it_is(folder: Folder, place: Path) -> None:
    assert (folder.path / "file").read_text() == "ours"
    moved = replace(place)
    assert (folder.path / "file").read_text() == "ours"
    (folder.path / "new").touch()
    assert sorted(os.listdir(moved)) == ["file", "new"]
    assert os.listdir(place) == ["file"]


def test_messages_name_it_as_people_know_it(folder: Folder, place: Path) -> None:
    text = f"{folder.path}/file, {folder.path}"
    assert readable(text) == f"{place}/file, {place}"
    moved = replace(place)
    assert readable(text) == f"{moved}/file, {moved}"
    folder.close()
    assert readable(text) == f"{moved}/file, {moved}"
    assert readable("/proc/self/fd/1000000/file") == "/proc/self/fd/1000000/file"
    assert readable("nothing to do") == "nothing to do"


def test_a_name_is_given_back_as_it_was_given(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent)
    opened = Folder(Path("here"))
    assert readable(f"{opened.path}/file") == "here/file"
    opened.close()
    assert readable(f"{opened.path}/file") == "here/file"


def test_errors_name_it_here_and_in_another_process(folder: Folder, place: Path) -> None:
    error = Damaged(folder.path / "file", reason=FileNotFoundError(2, "gone", str(folder.path)))
    wanted = f"{place}/file is damaged: [Errno 2] gone: '{place}'"
    assert str(error) == wanted
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(error), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == wanted
    plain = FsmountError(Path("/a"), reason=OSError(5, "no"))
    again = pickle.loads(pickle.dumps(plain))
    assert (again.detail, str(again.fields["reason"])) == (Path("/a"), "[Errno 5] no")


def test_the_log_names_it(folder: Folder, place: Path, tmp_path: Path) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        log_to(str(tmp_path / "log"))
        try:
            (folder.path / "none").read_text()
        except OSError as error:
            logging.getLogger("x").error("%s", error, exc_info=error)
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
    text = (tmp_path / "log").read_text()
    assert text.count(f"'{place}/none'") == 2
    assert "/proc" not in text


def _inside(path: str) -> str:
    return (Path(path) / "file").read_text()


async def test_workers_find_it(folder: Folder, place: Path) -> None:
    async with Workers(1) as workers:
        assert await workers.run(_inside, str(folder.path)) == "ours"
        replace(place)
        assert await workers.run(_inside, str(folder.path)) == "ours"


def test_a_path_that_is_used_too_late_leads_to_no_other_folder(tmp_path: Path) -> None:
    late = []
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        opened = Folder(tmp_path / str(number))
        late.append(opened.path)
        assert opened.number in open_numbers()
        opened.close()
        assert opened.number not in open_numbers()
    with Path(os.devnull).open():
        assert not [path for path in late if path.is_dir()]


def test_what_is_no_folder_leaves_no_descriptor(place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (place / "file", place / "none"):
        with pytest.raises(OSError):
            Folder(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_few_descriptors_are_enough(place: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from fsmount.folder import Folder\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90)); opened = Folder(Path(sys.argv[1]))\n"
        "sys.exit((opened.path / 'file').read_text() != 'ours')"
    )
    assert subprocess.run([sys.executable, "-c", script, place], check=False).returncode == 0


def test_closed_standard_streams_are_not_used(place: Path) -> None:
    """A child process gets other files under these numbers."""
    script = (
        "import os, sys; from pathlib import Path; from fsmount.folder import Folder\n"
        "os.closerange(0, 3); sys.exit(Folder(Path(sys.argv[1])).number < 3)"
    )
    assert subprocess.run([sys.executable, "-c", script, place], check=False).returncode == 0
