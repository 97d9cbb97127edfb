"""Only a test that passes when it is run again counts as unsteady."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.unsteady import failed

# `rarely` fails at its first run; the file counts the runs.
TESTS = """
from pathlib import Path

def runs():
    with Path("runs").open("a") as file:
        file.write("x")
    return len(Path("runs").read_text())

def test_always():
    pass

def test_rarely():
    assert runs() > 1

def test_now_and_then():
    assert runs() in (2, 3)

def test_never():
    assert False
"""


def run(folder: Path, *names: str) -> tuple[int, subprocess.CompletedProcess[str]]:
    """Run tests of a project of its own, and then the program. Returns pytest's status, too."""
    (folder / "test_it.py").write_text(TESTS)
    # Plugins take more time to start than the tests do.
    only = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), **only}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    first = python("pytest", "-q", *(f"test_it.py::test_{name}" for name in names))
    return first.returncode, python("tests.support.unsteady")


def test_a_test_that_fails_once(tmp_path: Path) -> None:
    status, done = run(tmp_path, "always", "rarely")
    assert (status, done.returncode) == (1, 0)
    assert failed(tmp_path / ".pytest_cache") == ["test_it.py::test_rarely"]
    assert done.stdout.endswith("above):\n  test_it.py::test_rarely\n")
    assert (tmp_path / "runs").read_text() == "x" * 11


@pytest.mark.parametrize(
    "names",
    [["never"], ["rarely", "never"], ["now_and_then"], ["always"], ["nowhere"]],
    ids=" ".join,
)
def test_a_test_that_fails_again(tmp_path: Path, names: list[str]) -> None:
    _, done = run(tmp_path, *names)
    assert done.returncode == 1
    assert "UNSTEADY" not in done.stdout
