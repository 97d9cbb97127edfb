"""A test that hangs ends, also if it waits for a mount whose server does not answer."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.mounts import Mount, missing
from tests.support.hang_guard import guarded


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_call_on_a_mount_that_hangs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mount = Mount(tmp_path)
    mount.start()
    subprocess.run(["kill", "-STOP", str(mount.pid)], check=True)
    try:
        with (
            pytest.raises(OSError, match="connection abort"),
            guarded("the test", tmp_path, limit_s=0.5),
        ):
            (mount.path / "unknown").stat()
    finally:
        mount.clean()
    assert "the test did not end within 0.5 s" in capfd.readouterr().err
    assert "test_a_call_on_a_mount_that_hangs" in (tmp_path / "hang.txt").read_text()


def test_a_child_that_hangs_is_killed(tmp_path: Path) -> None:
    with guarded("the test", tmp_path, limit_s=0.5):
        child = subprocess.Popen(["sleep", "1000"])
        assert child.wait() == -signal.SIGKILL


def test_what_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    with guarded("the test", tmp_path, limit_s=30.0):
        child = subprocess.Popen(["sleep", "0.1"])
        assert child.wait() == 0
    assert not (tmp_path / "hang.txt").exists()
