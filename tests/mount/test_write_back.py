"""Waiting for changed pages of open files when a mount ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fsmount.mount import write_back as module
from fsmount.mount.write_back import write_back


def test_pages_are_waited_for_without_a_descriptor_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This process opens no file of its mount.

    A worker process that starts inherits such a descriptor and closes it. The close waits until we
    have the pages, and we wait until the worker has started.
    """
    paths = [tmp_path / f"-{number}" for number in range(600)]
    for path in paths:
        path.write_bytes(b"x")
    opened: list[object] = []
    genuine = os.open

    def note(path: object, *more: Any, **options: Any) -> int:
        opened.append(path)
        return genuine(path, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", note)
    write_back(paths)
    assert not caplog.records
    assert not set(opened) & {*paths, *map(str, paths)}
    write_back([tmp_path / "gone", paths[0]])
    assert "gone" in caplog.text
    monkeypatch.setattr(module, "_SYNC", str(tmp_path / "no such program"))
    write_back(paths)
    assert "not waited for" in caplog.text
