"""Listing mounts, and unmounting all of them.

`umount --all` unmounts whatever there is. So its tests run in a mount namespace of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import Server, fsmount, well
from tests.e2e.mounts import missing
from tests.support.namespaces import own_namespace
from tests.support.paths import CHECKOUT

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def line_of(place: Path) -> str:
    """The line of `fsmount mounts` about a mountpoint; other tests may mount meanwhile."""
    found = [line for line in well("mounts").splitlines() if f" on {place} (" in line]
    assert len(found) == 1
    return found[0]


def test_what_is_mounted(root: Path, place: Path) -> None:
    well("mount", "-o", "ro", root, place)
    server = Server(place)
    assert line_of(place) == f"{root} on {place} (read-only, process {server.pid})"
    well("umount", place)
    assert f" on {place} (" not in well("mounts")

    well("mount", root, place)
    server = Server(place)
    with server.without_workers():
        (place / "a").write_bytes(b"waits for a worker")
        one = f"{root} on {place} (read-write, process {server.pid}, 1 file to encode)"
        assert line_of(place) == one
        rows = json.loads(well("mounts", "--json"))["mounts"]
        assert [row for row in rows if row["mountpoint"] == str(place)] == [
            {
                "mountpoint": str(place),
                "source": str(root),
                "read_only": False,
                "state": "served",
                "pid": server.pid,
                "staged": 1,
            }
        ]
    server.kill(signal.SIGKILL)
    assert "(read-write, dead; fsmount umount frees the folder)" in line_of(place)
    assert fsmount("unmount", place).returncode == 0


ALONE = """
set -e
fsmount() { "$PYTHON" -m fsmount "$@"; }
cd "$FOLDER"
"""


def alone(script: str, folder: Path) -> str:
    """Run a shell script in a mount namespace where fsmount has mounted nothing."""
    done = subprocess.run(
        [*own_namespace(), "bash", "-c", ALONE + script],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=200,
        check=False,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "FOLDER": str(folder),
            "PYTHONPATH": str(CHECKOUT),
        },
    )
    if done.stderr.startswith("unshare:"):
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_all_are_unmounted(tmp_path: Path) -> None:
    out = alone(
        """
        fsmount umount --all
        for name in a b; do
            mkdir $name; fsmount init $name.store > init; fsmount mount $name.store $name
        done
        mkdir a/inner
        fsmount mount -o ro b.store a/inner
        fsmount umount --all
        fsmount mounts
        # Two mountpoints of one filesystem: the first message says that the other one holds it.
        fsmount mount a.store a
        mkdir other
        mount --bind a other
        fsmount umount --all 2> why
        grep -c "is unmounted here, but its filesystem is still mounted" why
        """,
        tmp_path,
    )
    assert out.splitlines() == [
        "nothing is mounted",
        *(f"{tmp_path / name} is unmounted" for name in ("a/inner", "b", "a")),
        "nothing is mounted",
        f"{tmp_path / 'a'} is unmounted",
        "1",
    ]


def test_one_that_is_busy_does_not_stop_the_others(tmp_path: Path) -> None:
    out = alone(
        """
        for name in a b c; do
            mkdir $name; fsmount init $name.store > init; fsmount mount $name.store $name
        done
        mkdir other
        mount --bind a other
        exec 5> b/open
        set +e
        # `other` goes first; then `a` is the last mount of its filesystem.
        fsmount umount --all 2> why
        echo "code $?"
        cat why
        exec 5>&-
        fsmount umount b
        """,
        tmp_path,
    )
    lines = out.splitlines()
    assert f"{tmp_path / 'c'} is unmounted" in lines
    assert f"{tmp_path / 'a'} is unmounted" in lines
    assert "code 12" in lines
    assert any(line.startswith(f"fsmount: {tmp_path / 'b'}: it is busy: ") for line in lines)


def test_those_of_others_are_left_alone(tmp_path: Path) -> None:
    out = alone(
        """
        mkdir a; fsmount init a.store > init; fsmount mount a.store a
        chmod 755 . ..
        setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_read_search \\
            --ambient-caps +dac_read_search "$PYTHON" -m fsmount umount --all
        fsmount umount a
        """,
        tmp_path,
    )
    assert out == "nothing of yours is mounted\n"
