"""The command line: one module a command. The only package that prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fsmount.cli.common import streams

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code, also if interrupted while modules load."""
    streams.prepare()
    try:
        from fsmount.cli import app

        if "_FSMOUNT_COMPLETE" in os.environ:
            from fsmount.cli.common import shells  # noqa: F401
    except KeyboardInterrupt:
        sys.exit(130)
    app.main(arguments)
