"""The command line: one file a verb. The only place that prints."""

from fsmount.cli.app import main

__all__ = ["main"]
