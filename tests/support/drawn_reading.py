"""``fsmount text`` with the engine of the tests, at normal priority.

    python -m tests.support.drawn_reading STORE...

It prints a line when it begins to read, so that a test can kill it while it works.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from fsmount.cli import main
from fsmount.cli import text as command
from tests.support.drawn_words import DrawnEngine


def _engine(name: str, languages: object) -> DrawnEngine:
    return DrawnEngine()


def _begun(*, when_idle: bool) -> None:
    print("begun", flush=True)


if __name__ == "__main__":
    sys.argv[1:1] = ["text", "--quiet"]
    with patch.multiple(command, engine_of=_engine, be_last=_begun, on_mains=lambda: True):
        main()
