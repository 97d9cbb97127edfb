"""Screenshots of a real desktop on a real mount: the claims of the README on real input."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.measure import Watch
from tests.e2e.mounts import Mount, missing
from tests.support import corpus

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

# Interpreter, libraries and in-flight pictures of the daemon, beyond its share of --cache-size.
DAEMON_BYTES = 160 << 20
CACHE_BYTES = 64 << 20


def rsync(*arguments: str | Path) -> str:
    done = subprocess.run(["rsync", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")
    }


def stats(store: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "fsmount", "stats", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    made = Mount(tmp_path)
    yield made
    made.clean()


def test_rsync_in_and_everything_out_again(mount: Mount) -> None:
    source = corpus.files("desk")[0].parent
    names = sorted(path.name for path in source.glob("*.png"))
    mount.start()
    folder = mount.path / "desk"
    rsync("-a", f"{source}/", f"{folder}/")
    # The newest file is readable at once, whether it is encoded or not.
    assert (folder / names[-1]).read_bytes() == (source / names[-1]).read_bytes()
    assert rsync("-ai", f"{source}/", f"{folder}/") == ""
    mount.stop(drain=True)

    found = stats(mount.store)
    assert found["files"] == len(names)
    assert found["objects"]["staged"] == 0
    shown = found["objects"]["delta"]
    assert shown >= 100 * len(names) / 120
    assert found["ratio"] >= 16

    mount.start()
    with Watch(mount.pid) as watch:
        assert hashes(folder) == hashes(source)
    assert rsync("-aic", f"{source}/", f"{folder}/") == ""
    for name in names:
        assert (folder / name).stat().st_mtime_ns == (source / name).stat().st_mtime_ns
    assert watch.peak[0] < DAEMON_BYTES + 256 // 2 * (1 << 20)
    mount.stop()


def test_memory_stays_within_the_cache_size(tmp_path: Path) -> None:
    """Reads of more than the cache holds need no more than the cache and a stated constant."""
    source = corpus.files("desk")[0].parent
    mount = Mount(tmp_path, cache_bytes=CACHE_BYTES)
    try:
        mount.start()
        rsync("-a", f"{source}/", f"{mount.path}/")
        mount.stop(drain=True)
        mount.start()
        total = 0
        with Watch(mount.pid) as watch:
            for path in sorted(mount.path.glob("*.png")):
                total += len(path.read_bytes())
        assert total > CACHE_BYTES
        assert watch.peak[0] < DAEMON_BYTES + CACHE_BYTES
        mount.stop()
    finally:
        mount.clean()


def test_every_encoder_comes_back_identical(mount: Mount) -> None:
    source = corpus.files("encoders")[0].parent
    mount.start()
    folder = mount.path / "encoders"
    rsync("-a", f"{source}/", f"{folder}/")
    mount.stop(drain=True)
    mount.start()
    assert hashes(folder) == hashes(source)
    listed = subprocess.run(
        [sys.executable, "-m", "fsmount", "ls", mount.store, "encoders", "--json"],
        capture_output=True,
        check=True,
    )
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert not [row["name"] for row in rows if row["kind"] == "raw"]
    mount.stop()
