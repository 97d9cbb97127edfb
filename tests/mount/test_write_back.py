"""Pages of open files that are waited for at the end of a mount."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fsmount.mount.write_back import write_back


def test_pages_are_waited_for_without_a_descriptor_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that a starting worker inherits and closes would have it and us wait for each other."""
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
    monkeypatch.setenv("PATH", str(tmp_path))
    write_back(paths)
    assert "not waited for" in caplog.text
