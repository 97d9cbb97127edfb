"""The program ``mount.fsmount``, which mount(8) runs for the types fsmount and fuse.fsmount.

:mod:`fsmount.cli.app` knows by which names mount(8) finds it. ``python -m fsmount mount.fsmount``
runs it, too.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from fsmount.cli.common.output import printable, say
from fsmount.cli.mount import request_for
from fsmount.errors import NoStore, UsageError
from fsmount.mount.options import parse_options
from fsmount.mount.remount import remount
from fsmount.mount.session import serve_in_background

# The option of mount(8) that means: change a mount.
_REMOUNT = "remount"
# The option of mount.fuse that means: serve as this user.
_USER = "setuid="


@click.command(help="Mount a store for mount(8) and /etc/fstab. `fsmount mount --help` says more.")
@click.argument("source")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown options.")
@click.option("-f", "fake", is_flag=True, help="Check everything, and do not mount.")
@click.option("-n", "no_mtab", is_flag=True, help="Ignored: there is no /etc/mtab to write.")
@click.option("-v", "verbose", is_flag=True, help="Print what is mounted.")
@click.option("-N", "namespace", help="Mount in the mount namespace of a process or a file.")
@click.option("-t", "fstype", help="Ignored: the type, such as fuse.fsmount.")
@click.option("-o", "options", multiple=True, help="As of fsmount mount, and those of mount(8).")
def mount_helper(
    source: str,
    folder: Path,
    sloppy: bool,
    fake: bool,
    no_mtab: bool,
    verbose: bool,
    namespace: str | None,
    fstype: str | None,
    options: tuple[str, ...],
) -> None:
    """Run ``mount.fsmount``. Raises UsageError and errors of the mount."""
    words = ",".join(options).split(",")
    if namespace is not None:
        flags = [name for name, given in (("-s", sloppy), ("-f", fake), ("-v", verbose)) if given]
        _enter(namespace, [*flags, "-o", ",".join(words), "--", source, str(folder)])
    if _REMOUNT in words:
        if not fake:
            remount(folder, words)
        return
    ours = [word for word in words if not word.startswith(_USER)]
    chosen = parse_options(",".join(ours), sloppy=sloppy)
    for word in words:
        if word.startswith(_USER):
            _become(word.removeprefix(_USER))
    request = request_for(source, folder, chosen)
    try:
        if fake:
            request.check()
        else:
            serve_in_background(request)
    except NoStore:
        # mount(8): do not report errors for a device that does not exist.
        if "nofail" in words and not Path(source).exists():
            return
        raise
    if verbose:
        say(f"{printable(source)} mounted on {printable(folder)}")


def _enter(namespace: str, arguments: Sequence[str]) -> NoReturn:
    """Run this program again in another mount namespace.

    Parameters
    ----------
    namespace : str
        The number of a process, or the path of a namespace file.
    arguments : sequence of str
        The other arguments of this program.
    """
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdecimal() else namespace
    # -P: the working folder is another one there, and holds no modules of ours.
    program = [sys.executable, "-P", "-m", "fsmount", "mount.fsmount", *arguments]
    try:
        os.execvp("nsenter", ["nsenter", f"--mount={path}", "--", *program])
    except OSError as error:
        raise UsageError(f"-N needs the program nsenter: {error.strerror}") from error


def _become(name: str) -> None:
    """Go on as another user, with the groups of that user. Raises UsageError."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"the mount option 'setuid={name}': there is no such user") from None
    if user.pw_uid == os.geteuid():
        return
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except PermissionError:
        raise UsageError(f"only root can mount with the option 'setuid={name}'") from None
    os.environ["HOME"] = user.pw_dir
