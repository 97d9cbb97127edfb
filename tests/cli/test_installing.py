"""contrib/install on systems where something is missing.

contrib/dev/fresh tests it on systems where it may install packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT

ROOT = CHECKOUT


def install(tmp_path: Path, *there: str) -> subprocess.CompletedProcess[str]:
    """Run contrib/install as a user who is not root.

    The system has a few basic programs, and those named in `there`.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "cat", *there):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    (programs / "id").write_text("#!/bin/sh\necho 1000\n")
    (programs / "id").chmod(0o755)
    return subprocess.run(
        [programs / "bash", ROOT / "contrib" / "install"],
        env={"PATH": str(programs), "FSMOUNT_VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_pip_needs_is_named_before_it_runs(tmp_path: Path) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get here")
    done = install(tmp_path, "apt-get")
    assert (done.returncode, done.stdout) == (1, "")
    sentence, _, command = done.stderr.strip().partition("\n")
    assert "a C compiler, pkg-config and the headers of Python and libfuse3 are needed" in sentence
    for package in ("gcc", "libc6-dev", "pkg-config"):
        assert package in sentence.split("Missing: ")[1]
        assert package in command.split("sudo apt-get install ")[1].split()
    assert "rsync" in command
    assert "rsync" not in sentence
    assert not (tmp_path / "venv").exists()


def test_without_apt_the_packages_are_named(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert done.returncode == 1
    assert "There is no apt-get here. Install what Debian calls: gcc libc6-dev" in done.stderr
    assert not (tmp_path / "venv").exists()
