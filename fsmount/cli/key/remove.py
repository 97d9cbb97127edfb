"""The command ``fsmount key remove``."""

from __future__ import annotations

import click

from fsmount.cli.common.options import json_option, url_argument
from fsmount.cli.common.output import emit, printable
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.remote.opening import open_keys, remembered

_HELP = f"""\
Let a recipient open nothing that is sent from now on.

A new master key is made for it. The others can open all that was and will be sent. Whoever is
removed may have copied the master keys so far: what was sent before stays open to them, if they can
read the URL. A push that runs meanwhile ends with exit code 11; run it again. The last recipient
cannot be removed.

{UNLOCK_HELP}

\b
Example:
  fsmount key remove s3://my-bucket/shots laptop
"""


@click.command("remove", help=_HELP)
@url_argument
@click.argument("name", metavar="NAME")
@unlock_options
@json_option
def remove(url: str, name: str, as_json: bool) -> None:
    """Run ``fsmount key remove``."""
    remote, below = open_keys(url, unlock())
    # Encryption is an extra.
    from fsmount.remote.encryption import recipients

    ring = recipients.remove(remote, below, name)
    remembered(below, ring)
    emit(
        {"ring": ring.number, "master_keys": len(ring.keys), "recipients": ring.recipients},
        f"{name} cannot open what is sent to {printable(url)} from now on",
        as_json,
    )
