"""The command ``fsmount backup``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import force_lock_option, json_option, quiet_option, split_store
from fsmount.cli.common.output import counted, emit, list_problems, printable, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import open_index
from fsmount.errors import Damaged, UsageError
from fsmount.store.transfer.backup import back_up, size_of

_HELP = """\
Copy a store to another disk, also while it is in use.

DEST gets one state of the store: all files that it showed at one moment. DEST is a store itself.
To restore, copy the folder back with any program (cp -a, rsync), or mount DEST with -o ro, or
export from it. The next backup to DEST copies what is new. Until it is complete, DEST shows the
last one: stop the command or cut the power when you like, and run it again.

Each copied entry is read back from the disk and compared. What was copied before is compared by
size and time only; --reread compares every byte, so it also notices damage of DEST, and copies
what is damaged again. Damage of the store is named, and does not replace what DEST has whole.

The folder above DEST must exist: if the disk is not mounted, nothing is copied elsewhere.

Do not write to DEST: the next backup refuses a DEST that was opened for writing. What a mount is
just writing to a file is copied as it is at that moment. Albums, the log and lost/ are not part of
a backup.

\b
Examples:
  fsmount backup ~/shots.store /backup/shots
  fsmount backup ~/shots.store /backup/shots --reread
"""

_STOPPED = "DEST still shows the last complete backup. To go on, run the backup again."


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE DEST")
@click.option("--reread", is_flag=True, help="Compare every byte of DEST with the store.")
@force_lock_option
@quiet_option
@json_option
def backup(arguments: tuple[str, ...], reread: bool, force_lock: bool, as_json: bool) -> int:
    """Run ``fsmount backup``."""
    store, folders = split_store(arguments, 0)
    if len(folders) > 1:
        raise UsageError("name one store and one folder: fsmount backup STORE DEST")
    dest = Path(folders[0])
    with open_index(store) as opened:
        total = size_of(opened)
        with meter("backing up", 0, total, noun="packs and files", stopped=_STOPPED) as progress:
            done = back_up(opened, dest, reread=reread, force_lock=force_lock, progress=progress)
    emit(
        {
            "files": done.files,
            "packs": done.packs,
            "copied_bytes": done.copied_bytes,
            "problems": done.problems,
        },
        f"{printable(dest)} has all {counted(done.files, 'file')};"
        f" {size(done.copied_bytes)} copied",
        as_json,
    )
    if done.problems:
        if not as_json:
            warn("damage in the store, which the backup cannot mend (see fsmount check --full):")
            list_problems(done.problems)
        return Damaged.exit_code
    return 0
