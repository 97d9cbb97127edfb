"""The state of an adoption survives a kill at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.adopt.state import AdoptedFolder, State
from fsmount.errors import AdoptLocked, FsmountError

SUBJECT = AdoptedFolder(Path("/home/caf\udce9"), Path("/data/shots.store"), 5, 7)


def test_each_step_is_there_again(tmp_path: Path) -> None:
    for step in range(4):
        state = State(tmp_path)
        assert state.subject == (SUBJECT if step > 0 else None)
        assert state.since_ns == (123 if step > 1 else None)
        assert state.is_collected == (step > 2)
        if step == 0:
            state.begin(SUBJECT)
        if step == 1:
            state.mounts(123)
        if step == 2:
            state.collected()
        state.close()


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.begin(SUBJECT)
    state.mounts(123)
    state.close()
    whole = (tmp_path / "state").read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(len(whole)):
        (tmp_path / "state").write_bytes(whole[:end])
        state = State(tmp_path)
        assert state.subject == (SUBJECT if end >= first else None)
        assert state.since_ns is None
        state.begin(SUBJECT)
        state.close()
        State(tmp_path).close()


@pytest.mark.parametrize("line", [b"{}", b"[]", b"text", b'{"step": "begin", "format": 2}'])
def test_another_file(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "state").write_bytes(line + b"\n")
    with pytest.raises(FsmountError):
        State(tmp_path)
    assert (tmp_path / "state").read_bytes() == line + b"\n"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = State(tmp_path / ".")
    with pytest.raises(AdoptLocked):
        State(tmp_path)
    first.close()
    State(tmp_path).close()


def test_the_folder_of_the_state_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "shots.adopt"
    (root / "originals" / "kept").mkdir(parents=True)
    state = State(root)
    with pytest.raises(OSError, match="not empty"):
        state.remove()
    (root / "originals" / "kept").rmdir()
    state.remove()
    state.close()
    assert not root.exists()
