from __future__ import annotations

import os

import numpy as np
import pytest

from fsmount.work.sealed import Sealed


def test_parts_one_behind_the_other() -> None:
    array = np.arange(5000, dtype=np.uint16)
    made = Sealed.of([memoryview(b"abcd"), array.data, memoryview(b"")], "x")
    assert made is not None
    assert made.size == 4 + array.nbytes
    data = made.map("x")
    assert bytes(data[:4]) == b"abcd"
    assert np.array_equal(np.frombuffer(data, np.uint16, offset=4), array)


def test_nobody_can_change_it() -> None:
    made = Sealed.of([memoryview(b"abc")], "x")
    assert made is not None
    assert made.map("x").readonly
    for change in (
        lambda: os.write(made.fd, b"x"),
        lambda: os.pwrite(made.fd, b"x", 0),
        lambda: os.truncate(made.fd, 1),
        lambda: os.truncate(made.fd, 9),
    ):
        with pytest.raises(PermissionError):
            change()


def test_a_mapping_outlives_the_descriptor() -> None:
    made = Sealed.of([memoryview(b"abc")], "x")
    assert made is not None
    fd, data = made.fd, made.map("x")
    del made
    with pytest.raises(OSError):
        os.fstat(fd)
    assert bytes(data) == b"abc"


def test_memory_that_may_still_change_is_refused() -> None:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, b"abc")
    with pytest.raises(OSError, match="not sealed"):
        Sealed(fd, 3).map("x")


def test_memory_of_another_size_is_refused() -> None:
    made = Sealed.of([memoryview(b"abc")], "x")
    assert made is not None
    made.size = 4
    with pytest.raises(OSError, match="size"):
        made.map("x")


def test_a_system_without_such_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", lambda name, flags: os.open("/nowhere", os.O_RDONLY))
    assert Sealed.of([memoryview(b"abc")], "x") is None
    monkeypatch.delattr(os, "memfd_create")
    assert Sealed.of([memoryview(b"abc")], "x") is None


def test_a_full_system_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")

    def full(fd: int, data: object) -> int:
        raise OSError(28, "full")

    monkeypatch.setattr(os, "write", full)
    assert Sealed.of([memoryview(b"abc")], "x") is None
    assert os.listdir("/proc/self/fd") == before


def test_memory_of_something_else_is_refused() -> None:
    made = Sealed.of([memoryview(b"abc")], "one")
    assert made is not None
    assert bytes(made.map("one")) == b"abc"
    with pytest.raises(OSError, match="something else"):
        made.map("two")
