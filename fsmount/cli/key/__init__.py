"""The command group ``fsmount key``: one module a command."""

from __future__ import annotations

import click

from fsmount.cli.key.add import add
from fsmount.cli.key.forget import forget
from fsmount.cli.key.list import list_
from fsmount.cli.key.remove import remove
from fsmount.cli.key.rotate import rotate

_HELP = """\
Say who may open an encrypted URL (see fsmount push --encrypt).

A recipient is a public key of age or ssh, or a passphrase. Each can open all that is there. Nothing
that was sent is encrypted again. The keys are files of age in keys/ below the URL. Without any of
the recipients' keys and passphrases, nobody can open the URL: keep a copy of one elsewhere.

\b
Example:
  fsmount key add s3://my-bucket/shots laptop --recipient ~/laptop.pub
"""


@click.group(help=_HELP)
def key() -> None:
    """Run a command of ``fsmount key``."""


for _command in (list_, add, remove, rotate, forget):
    key.add_command(_command)
