"""The command ``fsmount push``."""

from __future__ import annotations

import click

from fsmount.cli.common.options import json_option, quiet_option, split_store
from fsmount.cli.common.output import counted, emit, list_problems, printable, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import open_index
from fsmount.cli.common.unlocking import UNLOCK_HELP, first_passphrase, unlock, unlock_options
from fsmount.errors import Damaged, UsageError
from fsmount.remote.opening import FirstRecipients, open_for_push
from fsmount.remote.push import push
from fsmount.remote.transport import transport_to
from fsmount.store.transfer.backup import size_of

_HELP = f"""\
Send a store to object storage, also while it is in use.

URL is s3://BUCKET/PREFIX (extra s3; Amazon S3 and servers like it) or file:///FOLDER (a disk, a
mounted server, or a folder that rclone copies on). URL gets one state of the store: all files that
it showed at one moment. A push sends what is new since the last one. Until it is complete, URL
shows the state before: stop the command when you like, and run it again.

For S3 set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and AWS_ENDPOINT_URL for a
server that is not Amazon's. The bucket must exist. Nothing of this is kept in the store. If the
network is lost, the command ends with an error after one to six minutes.

What was sent before is compared by size and time; --reread reads all of the store and all that
was sent, sends damaged and missing objects again, and the index as a whole. If two pushes to one
URL run at a time, one ends with exit code 11, and the other one counts.

Without --encrypt, what is sent is not encrypted. --encrypt encrypts pictures, names, hashes and
times before they leave (extra encrypt); say it at each push. The first one makes keys for
--recipient, a public key of age or ssh (or a file with some), or else for a passphrase, which you
type twice. If keys and passphrases are lost, nobody can open URL. fsmount key says who may.
{UNLOCK_HELP}

Nothing is deleted from URL: states before the newest one stay.

\b
Examples:
  fsmount push ~/shots.store s3://my-bucket/shots
  fsmount push ~/shots.store file:///media/disk/shots
  fsmount push ~/shots.store s3://my-bucket/shots --encrypt --recipient ~/.ssh/id_ed25519.pub
"""

_STOPPED = "URL still shows the last complete push. To go on, run the push again."


@click.command("push", help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE URL")
@click.option("--reread", is_flag=True, help="Read everything on both sides and compare.")
@click.option("--encrypt", is_flag=True, help="Encrypt what is sent.")
@click.option(
    "--recipient",
    "recipients",
    metavar="KEY",
    multiple=True,
    help="Who may open URL; at the first push with --encrypt.",
)
@unlock_options
@quiet_option
@json_option
def push_(
    arguments: tuple[str, ...],
    reread: bool,
    encrypt: bool,
    recipients: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run ``fsmount push``."""
    store, urls = split_store(arguments, 0)
    if len(urls) > 1:
        raise UsageError("name one store and one URL: fsmount push STORE URL")
    if recipients and not encrypt:
        raise UsageError("--recipient needs --encrypt")
    below = transport_to(urls[0])
    first = FirstRecipients(recipients, first_passphrase) if encrypt else None
    with open_index(store) as opened:
        remote = open_for_push(below, opened.index.identity(), unlock(), encrypt=first)
        total = size_of(opened)
        with meter("pushing", 0, total, noun="packs and files", stopped=_STOPPED) as progress:
            done = push(opened, remote, reread=reread, progress=progress)
    emit(
        {
            "generation": done.generation,
            "new": done.is_new,
            "files": done.files,
            "sent_objects": done.sent_objects,
            "sent_bytes": done.sent_bytes,
            "problems": done.problems,
        },
        f"{printable(urls[0])} has all {counted(done.files, 'file')}; {size(done.sent_bytes)} sent",
        as_json,
    )
    if done.problems:
        if not as_json:
            warn("damage in the store, which a push cannot mend (see fsmount check --full):")
            list_problems(done.problems)
        return Damaged.exit_code
    return 0
