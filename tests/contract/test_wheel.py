"""The wheel installs in an environment of its own, and holds what users need beside the program.

contrib/dev/wheel builds the same wheel, with tools that it fetches.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import setuptools

import fsmount
from tests.support.paths import CHECKOUT

pytestmark = pytest.mark.skipif(
    int(setuptools.__version__.split(".")[0]) < 77 or shutil.which("cc") is None,
    reason="needs setuptools 77 and a compiler",
)


_BELOW_PREFIX = ("man", "completions")


def run(*words: object, **variables: str) -> str:
    done = subprocess.run(
        [*map(str, words)],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(CHECKOUT / "fsmount", source / "fsmount", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
    run(
        *(*pip, "--no-build-isolation", "--no-deps", "--no-index", "-w", out, source),
        FSMOUNT_BUILD_ANYWAY="1",
    )
    (wheel,) = out.iterdir()
    return wheel


@pytest.fixture(name="environment", scope="module")
def _environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel. Other packages come from the environment of the tests."""
    place = tmp_path_factory.mktemp("fresh environment")
    run(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text(sysconfig.get_path("platlib") + "\n")
    return place


def test_one_wheel_serves_all_versions_of_python(wheel: Path) -> None:
    assert wheel.name.startswith(f"fsmount-{fsmount.__version__}-cp311-abi3-")


def test_it_holds_what_users_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
        for path in (CHECKOUT / "fsmount").rglob("*"):
            if path.is_file() and (path.suffix == ".py" or "share" in path.parts):
                name = path.relative_to(CHECKOUT).as_posix()
                if "__pycache__" not in name and path.parts[-3] not in _BELOW_PREFIX:
                    assert held.read(name) == path.read_bytes(), name
        assert {"fsmount/share/unpack.py", "fsmount/share/decrypt.py"} <= names
        assert "fsmount/codec/_kernel.abi3.so" in names
        # pip puts these below the prefix, where man and the shells look for them.
        data = f"fsmount-{fsmount.__version__}.data/data/share"
        assert f"{data}/man/man1/fsmount-import.1" in names
        assert f"{data}/man/man8/mount.fsmount.8" in names
        assert f"{data}/bash-completion/completions/fsmount" in names
        assert not any(name.startswith(("tests/", "contrib/")) for name in names)


def test_the_installed_program_runs(environment: Path, tmp_path: Path) -> None:
    program = environment / "bin" / "fsmount"
    assert run(program, "--version") == f"fsmount, version {fsmount.__version__}\n"
    store, out = tmp_path / "store", tmp_path / "out"
    run(program, "init", store)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("text")
    run(program, "import", tmp_path / "in", store)
    (unpack,) = environment.glob("lib/python*/site-packages/fsmount/share/unpack.py")
    run(environment / "bin" / "python", unpack, store, out)
    assert (out / "in" / "file").read_text() == "text"


def test_the_units_name_the_installed_program(environment: Path) -> None:
    program = environment / "bin" / "fsmount"
    printed = run(program, "setup", "--print", "--capture", "/store", "/shots")
    assert f'ExecStart="{program}" mount --foreground' in printed
    (shot,) = environment.glob("lib/python*/site-packages/fsmount/share/fsmount-shot")
    assert f'ExecStart=/bin/bash "{shot}" ${{DIR}}' in printed
