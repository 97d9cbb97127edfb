"""The command group ``fsmount album``: one module a command."""

from __future__ import annotations

import click

from fsmount.cli.album.append import append
from fsmount.cli.album.create import create
from fsmount.cli.album.extract import extract
from fsmount.cli.album.info import info
from fsmount.cli.album.verify import verify

_HELP = """\
Keep folders of photos as videos: a small, lossy copy. Ten to twenty times smaller.

An album is NAME.mp4, a video with one photo a second; NAME.xml, the output of exiftool for each
photo and all data that is needed to make files again; and NAME.files, the files that are no
photos. `fsmount mount` shows an album as the folder it was. An album does not replace the
photos: most of their pixels are gone.

\b
Example:
  fsmount album create ~/photos/2014-07-Italy -o /media/stick
"""


@click.group(help=_HELP)
def album() -> None:
    """Run a command of ``fsmount album``."""


for _command in (create, append, verify, extract, info):
    album.add_command(_command)
