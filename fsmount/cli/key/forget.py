"""The command ``fsmount key forget``."""

from __future__ import annotations

import click

from fsmount.cli.common.options import json_option, url_argument
from fsmount.cli.common.output import emit, printable
from fsmount.remote.encryption.seen import forget as forget_note
from fsmount.remote.encryption.seen import note_path

_HELP = """\
Forget what this machine has seen at an encrypted URL.

fsmount notes the newest keys and the newest state that it sees at an encrypted URL (in
~/.local/state/fsmount/remotes). So it notices a server that shows older ones, or none. Forget the
note if you removed them yourself. Then fsmount trusts what the URL shows. Nothing is changed there.

\b
Example:
  fsmount key forget s3://my-bucket/shots
"""


@click.command("forget", help=_HELP)
@url_argument
@json_option
def forget(url: str, as_json: bool) -> None:
    """Run ``fsmount key forget``."""
    found = forget_note(url)
    text = "removed" if found else "not there"
    emit({"forgotten": found}, f"{printable(note_path(url))}: {text}", as_json)
