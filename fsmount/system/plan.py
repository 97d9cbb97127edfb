"""What a set-up writes: units and settings of systemd, and links by which mount(8) finds fsmount.

A unit is a template of the package, filled with the path of this program. An instance of the unit
(``fsmount@NAME.service``) has a file ``NAME.conf`` with its store, folder and options.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fsmount.errors import UsageError

# mount(8) looks here only. The names are those of the types fsmount and fuse.fsmount.
HELPERS = (Path("/sbin/mount.fsmount"), Path("/sbin/mount.fuse.fsmount"))

_SYSTEM_UNITS = Path("/etc/systemd/system")
_SHARE = resources.files("fsmount") / "share"
_MOUNT_UNIT = "fsmount@.service"
_PUSH_UNITS = ("fsmount-push@.service", "fsmount-push@.timer")
_SHOT_UNITS = ("fsmount-shot@.service", "fsmount-shot@.timer")


@dataclass(frozen=True, slots=True)
class Instance:
    """One mount. `options` is as after ``-o``.

    `store` is an absolute path or a URL; `folder` is absolute. `no_colons`: names
    of screenshots get no colon. `push`: a URL that a timer pushes the store to, `push_encrypts`:
    encrypted.
    """

    name: str
    store: Path | str
    folder: Path
    options: str = ""
    no_colons: bool = False
    push: str = ""
    push_encrypts: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, and what to start.

    `settings` is the folder with the settings of all instances. `shared` are the files that all
    instances use, `own` those of the instance. `links` are paths and their targets. `units` are the
    units to enable and start.
    """

    settings: Path
    shared: dict[Path, str]
    own: dict[Path, str]
    links: dict[Path, Path]
    units: tuple[str, ...]


def name_for(folder: Path) -> str:
    """The usual name of the instance for a folder: the name of the folder."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", folder.name).strip("-.") or "store"


def takes_shots() -> bool:
    """Whether a set-up with screenshots was written for this user."""
    return (_user_settings() / "systemd" / "user" / _SHOT_UNITS[-1]).exists()


def does_push(scope: str) -> bool:
    """Whether a set-up with pushes was written, for this user (``--user``) or the system."""
    units = _user_settings() / "systemd" / "user" if scope == "--user" else _SYSTEM_UNITS
    return (units / _PUSH_UNITS[-1]).exists()


def plan_for_user(
    instance: Instance | None, *, captures: bool = False, pushes: bool = False
) -> Plan:
    """Plan units of the user who runs this. Without `instance` it has no file of an instance.

    `captures`: a timer takes a screenshot into the folder each minute. `pushes`: a timer pushes the
    store. Raises :class:`UsageError` if a path cannot stand in a file of systemd.
    """
    base = _user_settings()
    units = base / "systemd" / "user"
    names = (_MOUNT_UNIT, *(_SHOT_UNITS if captures else ()), *(_PUSH_UNITS if pushes else ()))
    shared = {units / name: _filled(f"user/{name}") for name in names}
    if instance is None:
        return Plan(base / "fsmount", shared, {}, {}, ())
    own = {base / "fsmount" / f"{instance.name}.conf": _settings(instance)}
    started = [f"fsmount@{instance.name}.service"]
    if captures:
        place = units / f"fsmount@{instance.name}.service.d" / "kept-shots.conf"
        own[place] = _filled("user/kept-shots.conf")
        started.append(f"fsmount-shot@{instance.name}.timer")
    if pushes:
        started.append(f"fsmount-push@{instance.name}.timer")
    return Plan(base / "fsmount", shared, own, {}, tuple(started))


def plan_for_system(instance: Instance | None, *, pushes: bool = False) -> Plan:
    """Plan the links for mount(8) and the unit of the system. `pushes`: see :func:`plan_for_user`.

    Raises :class:`UsageError` if a path cannot stand in a file of systemd, or if this program is no
    file that a link can point to.
    """
    units, settings = _SYSTEM_UNITS, Path("/etc/fsmount")
    names = (_MOUNT_UNIT, *(_PUSH_UNITS if pushes else ()))
    shared = {units / name: _filled(f"system/{name}") for name in names}
    script = _script()
    if script is None:
        raise UsageError("mount(8) needs a program fsmount: install fsmount with pip or pipx")
    links = dict.fromkeys(HELPERS, script)
    if instance is None:
        return Plan(settings, shared, {}, links, ())
    # The folder itself is mounted by the unit.
    local = [] if "://" in str(instance.store) else [Path(instance.store)]
    needed = " ".join(_word(path) for path in (*local, instance.folder.parent))
    own = {
        settings / f"{instance.name}.conf": _settings(instance),
        units / f"fsmount@{instance.name}.service.d" / "paths.conf": (
            f"# Written by `fsmount setup --system`.\n[Unit]\nRequiresMountsFor={needed}\n"
        ),
    }
    started = [f"fsmount@{instance.name}.service"]
    if pushes:
        started.append(f"fsmount-push@{instance.name}.timer")
    return Plan(settings, shared, own, links, tuple(started))


def fstab_line(instance: Instance) -> str:
    """The line of /etc/fstab that mounts on the first use, and unmounts ten minutes after the last.

    Raises :class:`UsageError` if a path cannot stand in it.
    """
    options = "noauto,x-systemd.automount,x-systemd.idle-timeout=10min"
    options += ",ro,_netdev" if "://" in str(instance.store) else ""
    options += f",{instance.options}" if instance.options else ""
    fields = (str(_plain(path)) for path in (instance.store, instance.folder))
    source, folder = (re.sub(r"[ \\#]", lambda found: f"\\{ord(found[0]):03o}", f) for f in fields)
    return f"{source} {folder} fuse.fsmount {options} 0 0"


def _user_settings() -> Path:
    """The folder that systemd calls %E for this user."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _script() -> Path | None:
    """The program ``fsmount``; None if only ``python -m fsmount`` works.

    A link to it is not resolved: pipx and the like keep it when they install a new version.
    """
    called = shutil.which(sys.argv[0])
    if called is not None and Path(called).name == "fsmount":
        return Path(called).absolute()
    beside = Path(sys.executable).with_name("fsmount")
    return beside if os.access(beside, os.X_OK) else None


def _program() -> str:
    """The words that start fsmount, as in ExecStart=."""
    script = _script()
    return f"{_word(Path(sys.executable))} -P -m fsmount" if script is None else _word(script)


def _filled(name: str) -> str:
    """A template of the package with the paths of this installation."""
    text = _SHARE.joinpath("systemd", *name.split("/")).read_text(encoding="utf-8")
    # In arguments, other than in the path of the program, systemd replaces variables.
    shot = _word(Path(str(_SHARE / "fsmount-shot"))).replace("$", "$$")
    return text.replace("@FSMOUNT@", _program()).replace("@SHOT@", shot)


def _word(path: Path) -> str:
    """A path as one word of a line of a unit."""
    text = str(_plain(path)).replace("%", "%%")
    if re.fullmatch(r"[\w@%$+=:,./-]+", text, re.ASCII):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _settings(instance: Instance) -> str:
    """The file of an instance, as EnvironmentFile= reads it."""
    values = {
        "STORE": _plain(instance.store),
        "DIR": _plain(instance.folder),
        "OPTIONS": instance.options,
    }
    if instance.no_colons:
        values["FSMOUNT_NO_COLONS"] = "1"
    if instance.push:
        values["PUSH"] = _plain(instance.push)
        # Without quotes in the unit: none, or words.
        values["PUSH_OPTIONS"] = "--encrypt" if instance.push_encrypts else ""
    lines = [
        name + '="' + re.sub(r'(["\\`$])', r"\\\1", str(value)) + '"'
        for name, value in values.items()
    ]
    head = "# Written by `fsmount setup`. FSMOUNT_CACHE_SIZE=512M would give it more memory."
    return "\n".join((head, *lines, ""))


def _plain(path: Path | str) -> Path | str:
    """The same path or URL.

    Raises :class:`UsageError` if it is not UTF-8, or has control characters.
    """
    text = str(path)
    if not text.isprintable():
        raise UsageError(f"{path} has characters that systemd does not accept in a path")
    return path
