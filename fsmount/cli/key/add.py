"""The command ``fsmount key add``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import json_option, url_argument
from fsmount.cli.common.output import emit, printable
from fsmount.cli.common.unlocking import UNLOCK_HELP, new_passphrase, unlock, unlock_options
from fsmount.errors import UsageError
from fsmount.remote.encryption import passphrases
from fsmount.remote.opening import open_keys, remembered

_HELP = f"""\
Let somebody else open an encrypted URL.

NAME is for fsmount key list and remove; the server does not see it. --recipient is a public key
(age1..., ssh-ed25519 ..., ssh-rsa ...) or a file with one. Without it the new recipient is a
passphrase, which you type twice, or the first line of --new-passphrase-file.

{UNLOCK_HELP}

\b
Examples:
  fsmount key add s3://my-bucket/shots laptop --recipient ~/.ssh/id_ed25519.pub
  fsmount key add s3://my-bucket/shots safe --new-passphrase-file ~/safe.txt
"""


@click.command("add", help=_HELP)
@url_argument
@click.argument("name", metavar="NAME")
@click.option("--recipient", metavar="KEY", help="A public key, or a file with one.")
@click.option(
    "--new-passphrase-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file whose first line is the passphrase of the new recipient.",
)
@unlock_options
@json_option
def add(
    url: str, name: str, recipient: str | None, new_passphrase_file: Path | None, as_json: bool
) -> None:
    """Run ``fsmount key add``."""
    if recipient is not None and new_passphrase_file is not None:
        raise UsageError("a recipient is a public key or a passphrase, not both")
    remote, below = open_keys(url, unlock())
    # Encryption is an extra.
    from fsmount.remote.encryption import recipients

    recipients.checked_name(remote.ring, name)
    if recipient is not None:
        public = recipients.one(recipient)
    elif new_passphrase_file is not None:
        public = recipients.put_locked(below, passphrases.from_file(new_passphrase_file))
    else:
        public = recipients.put_locked(below, new_passphrase(f"{name} at {url}"))
    ring = recipients.add(below, remote.ring, name, public)
    remembered(below, ring)
    emit(
        {"ring": ring.number, "recipients": ring.recipients},
        f"{name} can open {printable(url)}",
        as_json,
    )
