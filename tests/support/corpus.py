"""Where the screenshots of real programs are that some tests read; they are no part of the project.

FSMOUNT_CORPUS names the folder. FSMOUNT_CORPUS_FULL=1 makes those tests read all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT

_BESIDE = CHECKOUT.parent / "shared" / "corpus"


def root() -> Path:
    """The folder of the corpus, there or not."""
    return Path(os.environ.get("FSMOUNT_CORPUS") or _BESIDE)


def files(folder: str, one_in: int = 1) -> list[Path]:
    """The PNGs of a folder of the corpus, sorted; without FSMOUNT_CORPUS_FULL every `one_in`th.

    Skips the test when there are none.
    """
    found = sorted((root() / folder).glob("*.png"))
    if not found:
        pytest.skip("no corpus here")
    return found if os.environ.get("FSMOUNT_CORPUS_FULL") else found[::one_in]
