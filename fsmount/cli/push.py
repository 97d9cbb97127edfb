"""The command ``fsmount push``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from fsmount.cli.common.options import Size, json_option, quiet_option, split_store
from fsmount.cli.common.output import counted, emit, list_problems, printable, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import open_index
from fsmount.cli.common.unlocking import UNLOCK_HELP, first_passphrase, unlock, unlock_options
from fsmount.errors import Damaged, NotPushed, UsageError
from fsmount.remote.limits import Dry, limited, part_bytes
from fsmount.remote.opening import FirstRecipients, open_for_push
from fsmount.remote.pruning import PruneSummary, prune
from fsmount.remote.push import PACK_PART, PushSummary, push
from fsmount.remote.transport import Transport, transport_to
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

States before the newest one stay at URL. --prune removes old ones when the push is complete, and
what only they name. It keeps the newest states that differ (--keep-states) and, if you say
--keep-days, those of the last days. The command counts the objects that the server refuses to
remove. A bucket with an object lock only hides removed objects: it keeps them as older versions.
Another push that runs at the same time ends with exit code 11. Run that push again.

--class sends sealed packs to a storage class of S3, such as DEEP_ARCHIVE. All else stays at hand,
so that fsmount ls and later pushes work at once. To read archived packs again: fsmount thaw. What
was sent before keeps its class.

--bandwidth limits what is sent. Objects go one by one, each evenly; new objects of packs have the
bytes of 4 seconds, at least 1M. If you use a proxy (HTTPS_PROXY and the like), an object goes out
at full speed, with a pause behind it. --dry-run tells what would be sent and removed.

\b
Examples:
  fsmount push ~/shots.store s3://my-bucket/shots
  fsmount push ~/shots.store file:///media/disk/shots
  fsmount push ~/shots.store s3://my-bucket/shots --bandwidth 2M --prune --keep-days 90
  fsmount push ~/shots.store s3://my-bucket/shots --class DEEP_ARCHIVE
  fsmount push ~/shots.store s3://my-bucket/shots --encrypt --recipient ~/.ssh/id_ed25519.pub
"""

_STOPPED = "URL still shows the last complete push. To go on, run the push again."
_PRUNE_STOPPED = "What is kept is whole. To go on, run the push again."


@click.command("push", help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE URL")
@click.option("--reread", is_flag=True, help="Read everything on both sides and compare.")
@click.option("--prune", "pruning", is_flag=True, help="Remove old states afterwards.")
@click.option(
    "--keep-states",
    type=click.IntRange(min=1),
    default=None,
    help="How many states --prune keeps: 10 by default.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0),
    default=None,
    help="Keep all states of so many days, too.",
)
@click.option(
    "--class", "pack_class", metavar="CLASS", help="The storage class of packs, in a bucket."
)
@click.option("--bandwidth", type=Size(), help="Send at most so many bytes a second, such as 2M.")
@click.option("-n", "--dry-run", is_flag=True, help="Send and remove nothing.")
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
    pruning: bool,
    keep_states: int | None,
    keep_days: float | None,
    pack_class: str | None,
    bandwidth: int | None,
    dry_run: bool,
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
    if not pruning and (keep_states is not None or keep_days is not None):
        raise UsageError("--keep-states and --keep-days need --prune")
    if bandwidth == 0:
        raise UsageError("--bandwidth 0 would send nothing")
    first = FirstRecipients(recipients, first_passphrase) if encrypt else None
    with (
        _transport(urls[0], pack_class, bandwidth) as below,
        open_index(store, packs="here") as opened,
    ):
        identity = opened.index.identity()
        remote = open_for_push(below, identity, unlock(), encrypt=first, dry_run=dry_run)
        total = size_of(opened)
        with meter("pushing", 0, total, noun="packs and files", stopped=_STOPPED) as progress:
            most = PACK_PART if bandwidth is None else part_bytes(bandwidth)
            to = Dry(remote) if dry_run else remote
            done = push(opened, to, reread=reread, progress=progress, part_bytes=most)
        pruned = None
        # If a part of the store is damaged, an old state may have it whole.
        if pruning and not done.problems:
            pruned = _prune(remote, below, keep_states or 10, keep_days or 0, dry_run=dry_run)
    _tell(urls[0], done, pruned, dry_run=dry_run, as_json=as_json)
    if not done.problems:
        return 0
    if not as_json:
        if pruning:
            warn("nothing was pruned, since old states may have whole what is damaged now")
        warn("damage in the store, which a push cannot mend (see fsmount check --full):")
        list_problems(done.problems)
    return Damaged.exit_code


def _tell(
    url: str, done: PushSummary, pruned: PruneSummary | None, *, dry_run: bool, as_json: bool
) -> None:
    """Print what was pushed and pruned, or would be."""
    has, would = ("would have", "would be ") if dry_run else ("has", "")
    text = f"{printable(url)} {has} all {counted(done.files, 'file')}"
    text += f"; {size(done.sent_bytes)} {would}sent"
    if pruned is not None:
        text += f"\n{_pruned(pruned, would)}"
    emit(
        {
            "generation": done.generation,
            "new": done.is_new,
            "files": done.files,
            "sent_objects": done.sent_objects,
            "sent_bytes": done.sent_bytes,
            "problems": done.problems,
            "dry_run": dry_run,
        }
        | ({} if pruned is None else {"pruned": asdict(pruned)}),
        text,
        as_json,
    )


@contextmanager
def _transport(url: str, pack_class: str | None, bandwidth: int | None) -> Iterator[Transport]:
    """The transport to URL, with the limit that the user wants."""
    if bandwidth is None:
        yield transport_to(url, pack_class=pack_class)
    else:
        with limited(url, bandwidth, pack_class=pack_class) as transport:
            yield transport


def _prune(
    remote: Transport, below: Transport, keep_states: int, keep_days: float, *, dry_run: bool
) -> PruneSummary:
    """Remove old states. If nothing was pushed there (a dry run), nothing is removed."""
    try:
        with meter("pruning", 0, 0, noun="objects", stopped=_PRUNE_STOPPED) as progress:
            return prune(
                remote,
                below,
                keep_states=keep_states,
                keep_days=keep_days,
                dry_run=dry_run,
                progress=progress,
            )
    except NotPushed:
        if dry_run:
            return PruneSummary()
        raise


def _pruned(done: PruneSummary, would: str) -> str:
    text = (
        f"{counted(done.states, 'state')} and {counted(done.objects, 'object')}"
        f" ({size(done.bytes)}) {would}removed, {counted(done.kept_states, 'state')} kept"
    )
    if done.keeps_versions:
        text += "; the bucket keeps older versions of what was removed (object lock, versioning)"
    if done.retained:
        text += f"; the server retains {counted(done.retained, 'object')} (object lock, or rights)"
    return text
