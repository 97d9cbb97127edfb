"""The folder with screenshots of real programs. Some tests read them; the project has none.

FSMOUNT_CORPUS names the folder. FSMOUNT_CORPUS_FULL=1 makes these tests read all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT

_BESIDE = CHECKOUT.parent / "shared" / "corpus"


def root() -> Path:
    """The folder of the corpus, whether or not it exists."""
    return Path(os.environ.get("FSMOUNT_CORPUS") or _BESIDE)


def files(folder: str, one_in: int = 1) -> list[Path]:
    """The PNGs of a folder of the corpus, sorted.

    Without FSMOUNT_CORPUS_FULL only every `one_in`th. Skips the test if the folder has none.
    """
    found = sorted((root() / folder).glob("*.png"))
    if not found:
        pytest.skip("no corpus here")
    return found if os.environ.get("FSMOUNT_CORPUS_FULL") else found[::one_in]
