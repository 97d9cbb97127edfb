"""Packs in tests: what any ZIP program finds in them, and damage on purpose."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path


def unzipped(path: Path) -> dict[str, bytes]:
    """The members of a pack by name. Fails if `unzip` or Python finds the archive damaged."""
    result = subprocess.run(["unzip", "-tqq", path], capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def drop_parity(root: Path) -> None:
    """Let a store have no parity: damage then costs files."""
    for path in (root / "packs").glob("*.parity"):
        path.unlink()
    config = root / "fsmount.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"parity": 0}))


def flip(path: Path, at: int, bits: int = 1) -> None:
    """Change `bits` of the byte at offset `at` of a file. A second call changes them back."""
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)
