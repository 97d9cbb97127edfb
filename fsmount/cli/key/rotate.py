"""The command ``fsmount key rotate``."""

from __future__ import annotations

import click

from fsmount.cli.common.options import json_option, url_argument
from fsmount.cli.common.output import emit, printable
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.remote.opening import open_keys, remembered

_HELP = f"""\
Make a new master key for what is sent to an encrypted URL from now on.

The recipients stay. Nothing that was sent is encrypted again. A push that runs meanwhile ends with
exit code 11; run it again.

{UNLOCK_HELP}

\b
Example:
  fsmount key rotate s3://my-bucket/shots
"""


@click.command("rotate", help=_HELP)
@url_argument
@unlock_options
@json_option
def rotate(url: str, as_json: bool) -> None:
    """Run ``fsmount key rotate``."""
    remote, below = open_keys(url, unlock())
    # Encryption is an extra.
    from fsmount.remote.encryption import recipients

    ring = recipients.rotate(remote, below)
    remembered(below, ring)
    emit(
        {"ring": ring.number, "master_keys": len(ring.keys), "recipients": ring.recipients},
        f"a new master key encrypts what is sent to {printable(url)} from now on",
        as_json,
    )
