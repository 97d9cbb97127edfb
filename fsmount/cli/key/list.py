"""The command ``fsmount key list``."""

from __future__ import annotations

import click

from fsmount.cli.common.options import json_option, url_argument
from fsmount.cli.common.output import counted, emit, printable
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.remote.opening import open_keys

_HELP = f"""\
List who may open an encrypted URL.

{UNLOCK_HELP}

\b
Example:
  fsmount key list s3://my-bucket/shots
"""


@click.command("list", help=_HELP)
@url_argument
@unlock_options
@json_option
def list_(url: str, as_json: bool) -> None:
    """Run ``fsmount key list``."""
    remote, _ = open_keys(url, unlock())
    ring = remote.ring
    lines = [f"{name:<16} {public}" for name, public in sorted(ring.recipients.items())]
    lines.append(f"{counted(len(ring.keys), 'master key')}; {printable(ring.name)}")
    data = {"ring": ring.number, "master_keys": len(ring.keys), "recipients": ring.recipients}
    emit(data, "\n".join(lines), as_json)
