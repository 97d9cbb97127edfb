"""The command ``fsmount setup``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from fsmount.cli.common.output import printable, say, warn
from fsmount.cli.mount import request_for
from fsmount.errors import UsageError
from fsmount.mount.options import parse_options
from fsmount.remote.transport import is_url, transport_to
from fsmount.store import config
from fsmount.system import install
from fsmount.system.plan import (
    Instance,
    Plan,
    does_push,
    fstab_line,
    name_for,
    plan_for_system,
    plan_for_user,
    takes_shots,
)

_SCREEN = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY")

_HELP = """\
Let systemd or /etc/fstab mount a store.

--user (the default) writes a unit of systemd for you, and starts it: STORE is mounted on DIR now
and whenever you log in. With --capture a timer also takes a screenshot into DIR each minute.

--system (as root) makes the links /sbin/mount.fsmount and /sbin/mount.fuse.fsmount, so that
`mount -t fuse.fsmount STORE DIR` and lines in /etc/fstab work. With STORE and DIR it also writes a
unit of the system and starts it, and shows the line for /etc/fstab that does the same.

STORE may be a URL, too (see fsmount mount). With --push a timer pushes STORE to a URL each hour,
also while it is not mounted; put AWS_... variables for it into the file NAME.conf that this writes.
With --encrypt it pushes to an encrypted URL: push there once with fsmount push --encrypt before,
and put FSMOUNT_IDENTITY or FSMOUNT_PASSCOMMAND into NAME.conf, too. The mount options
push=URL,encrypt do it without systemd.

--print shows everything and changes nothing. The same command with --remove undoes it: DIR is
unmounted, the store stays as it is. With both, it shows what would be removed.

\b
Examples:
  fsmount setup ~/shots.store ~/screenshots
  fsmount setup --capture ~/shots.store ~/screenshots
  fsmount setup --push s3://my-bucket/shots ~/shots.store ~/screenshots
  fsmount setup --push s3://my-bucket/secret --encrypt ~/shots.store ~/screenshots
  fsmount setup --remove ~/shots.store ~/screenshots
  fsmount setup --system --print /srv/shots.store /srv/screenshots
"""


@click.command(help=_HELP)
@click.argument("paths", nargs=-1, metavar="[STORE DIR]")
@click.option("--user", "scope", flag_value="--user", default=True, help="For this user.")
@click.option("--system", "scope", flag_value="--system", help="For the whole system.")
@click.option(
    "-o",
    "options",
    help="Mount options, as of fsmount mount. Default with --system: allow_other.",
)
@click.option("--name", help="Name of the unit, fsmount@NAME. Default: the name of DIR.")
@click.option("--capture", is_flag=True, help="Take a screenshot into DIR each minute.")
@click.option(
    "--no-colons",
    is_flag=True,
    help="With --capture: names of screenshots without ':', for Windows, exFAT and the like.",
)
@click.option("--push", metavar="URL", help="Push STORE to URL each hour, by a timer.")
@click.option("--encrypt", is_flag=True, help="With --push: URL is encrypted.")
@click.option("--no-start", is_flag=True, help="Write the files, but start nothing.")
@click.option(
    "--print", "only_print", is_flag=True, help="Show what would be done, change nothing."
)
@click.option("--remove", is_flag=True, help="Undo the same command without --remove.")
def setup(
    paths: tuple[str, ...],
    scope: str,
    options: str | None,
    name: str | None,
    capture: bool,
    no_colons: bool,
    push: str | None,
    encrypt: bool,
    no_start: bool,
    only_print: bool,
    remove: bool,
) -> None:
    """Run ``fsmount setup``. Raises UsageError, NoStore, FsmountError and OSError."""
    if len(paths) not in (0, 2):
        raise UsageError("name a store and a folder: fsmount setup STORE DIR")
    if capture and scope == "--system":
        raise UsageError("--capture is for a user: only a user has a screen")
    if no_colons and not capture:
        raise UsageError("--no-colons is about the names of screenshots: add --capture")
    if encrypt and push is None:
        raise UsageError("--encrypt is about what is pushed: add --push URL")
    if push is not None:
        transport_to(push)
        if not paths or is_url(paths[0]):
            raise UsageError("--push needs a store on this machine: fsmount setup STORE DIR")
    instance = None
    if paths:
        store = paths[0] if is_url(paths[0]) else str(Path(paths[0]).resolve())
        folder = Path(paths[1]).resolve()
        if name is not None and name_for(Path(name)) != name:
            raise UsageError(f"--name {name!r}: letters, digits, '_', '.' and '-' only")
        if options is None:
            options = "allow_other" if scope == "--system" else ""
        instance = Instance(
            name or name_for(folder), store, folder, options, no_colons, push or "", encrypt
        )
    pushes = push is not None or (remove and instance is not None and does_push(scope))
    if scope == "--system":
        plan = plan_for_system(instance, pushes=pushes)
    else:
        captures = capture or (remove and takes_shots())
        plan = plan_for_user(instance, captures=captures, pushes=pushes)
    if only_print and remove:
        _show_removal(plan, scope)
    elif only_print:
        _show(plan, scope)
    elif remove:
        _remove(plan, scope)
    else:
        if instance is not None:
            _check(instance)
        _install(plan, scope, start=not no_start)
    if not remove:
        _explain(instance, scope)
        if instance is not None and encrypt:
            _explain_encryption(instance, plan)


def _check(instance: Instance) -> None:
    """Raise the errors that the mount would have, and make its folder."""
    request = request_for(str(instance.store), instance.folder, parse_options(instance.options))
    if request.is_store:
        config.read(Path(instance.store))
    if not os.path.lexists(instance.folder):
        instance.folder.mkdir(parents=True)
        say(f"made {printable(instance.folder)}")


def _show(plan: Plan, scope: str) -> None:
    for path, text in (plan.shared | plan.own).items():
        say(f"# {printable(path)}")
        for line in text.splitlines():
            say(line)
        say("")
    for link, target in plan.links.items():
        say(f"ln -s {shlex.quote(str(target))} {link}")
    for words in _starting(plan, scope):
        say(f"systemctl {scope} {' '.join(words)}")


def _show_removal(plan: Plan, scope: str) -> None:
    removable = install.removable(plan)
    for words in _stopping(plan):
        say(f"systemctl {scope} {' '.join(words)}")
    for path in removable:
        say(f"rm {shlex.quote(str(path))}")
    if removable:
        say(f"systemctl {scope} daemon-reload")
    _name_packaged(plan)


def _name_packaged(plan: Plan) -> None:
    """Name the links that belong to a package."""
    for link, package in install.packaged(plan).items():
        warn(f"{printable(link)} belongs to the package {package}: it stays as it is")


def _stopping(plan: Plan) -> list[list[str]]:
    """The arguments of systemctl that stop the units of a plan, if they were set up."""
    was_made = any(path.exists() for path in plan.own)
    return [["disable", "--now", *reversed(plan.units)]] if was_made else []


def _starting(plan: Plan, scope: str) -> list[list[str]]:
    """The arguments of systemctl that start the units of a plan."""
    commands = [["daemon-reload"]]
    screen = [variable for variable in _SCREEN if variable in os.environ]
    if scope == "--user" and len(plan.units) > 1 and screen:
        # Programs that a timer starts need the address of the screen.
        commands.append(["import-environment", *screen])
    if plan.units:
        commands.append(["enable", "--now", *plan.units])
    return commands


def _install(plan: Plan, scope: str, *, start: bool) -> None:
    for path in install.write(plan):
        say(f"wrote {printable(path)}")
    _name_packaged(plan)
    commands = _starting(plan, scope) if start else []
    if commands and not install.is_running(scope):
        warn("systemd does not run here, or not for this user. Nothing was started. Where it runs:")
        for words in commands:
            warn(f"  systemctl {scope} {' '.join(words)}")
        commands = []
    for words in commands:
        install.control(scope, *words)
    if commands and plan.units:
        say(f"started {' and '.join(plan.units)}")


def _remove(plan: Plan, scope: str) -> None:
    running = install.is_running(scope)
    if running:
        for words in _stopping(plan):
            install.control(scope, *words)
    elif plan.units:
        warn("systemd does not run here, or not for this user: nothing was stopped.")
    for path in install.remove(plan):
        say(f"removed {printable(path)}")
    _name_packaged(plan)
    if running:
        install.control(scope, "daemon-reload")


def _explain_encryption(instance: Instance, plan: Plan) -> None:
    """Say what the first encrypted push needs, and what opens URL for the later ones."""
    push = f"{shlex.quote(str(instance.store))} {shlex.quote(instance.push)}"
    conf = printable(plan.settings / f"{instance.name}.conf")
    say(f"Unless you have done it: fsmount push --encrypt --recipient KEY {printable(push)}")
    say(f"So that the timer can open it, add FSMOUNT_IDENTITY=FILE to {conf}")


def _explain(instance: Instance | None, scope: str) -> None:
    """Say how to go on."""
    option = " --user" if scope == "--user" else ""
    if instance is None:
        say(f"A store is mounted by: fsmount setup {scope} STORE DIR")
    else:
        unit = f"fsmount@{instance.name}"
        say(f"State: systemctl{option} status {unit}")
        say(f"Log: journalctl{option} -u {unit}")
        say(f"Unmount: systemctl{option} stop {unit}")
    if scope == "--user":
        say("Without `loginctl enable-linger` the mount ends when you log out.")
    elif instance is None:
        say("Or by a line in /etc/fstab; with STORE and DIR this command shows it.")
    else:
        say("Instead of the unit, a line of /etc/fstab can mount it when somebody looks into it:")
        say(f"  {fstab_line(instance)}")
