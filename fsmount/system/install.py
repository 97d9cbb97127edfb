"""Carry out a plan, and undo it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fsmount.errors import FsmountError, UsageError
from fsmount.system.plan import Plan

_RUNNING = ("initializing", "starting", "running", "degraded", "maintenance")


def write(plan: Plan) -> list[Path]:
    """Write the files and links of a plan. Return those that were not like that before.

    A link that belongs to a package stays as it is. Raises :class:`UsageError` if something else is
    at the place of a link, and OSError.
    """
    for link in plan.links:
        if link.exists() and not link.is_symlink():
            raise UsageError(f"{link} is a file, not a link of fsmount; remove it first")
    changed = [path for path, text in _files(plan).items() if _content(path) != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_text(_files(plan)[path], encoding="utf-8")
        new.replace(path)
    of_packages = packaged(plan)
    for link, target in plan.links.items():
        if link not in of_packages and not (link.is_symlink() and link.readlink() == target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            changed.append(link)
    return changed


def remove(plan: Plan) -> list[Path]:
    """Remove what :func:`write` wrote. Return what was there. Raises OSError."""
    gone = removable(plan)
    for path in gone:
        path.unlink()
    for folder in {plan.settings, *(path.parent for path in plan.own)}:
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()
    return gone


def removable(plan: Plan) -> list[Path]:
    """Return what :func:`remove` removes now.

    Shared files and links stay while another instance has its settings. A link stays if it does
    not point to this program, or belongs to a package.
    """
    found = [*plan.own]
    if not set(plan.settings.glob("*.conf")) - set(plan.own):
        found += plan.shared
        ours = {link for link, target in plan.links.items() if _points_to(link, target)}
        found += sorted(ours - packaged(plan).keys())
    return [path for path in found if path.is_symlink() or path.exists()]


def packaged(plan: Plan) -> dict[Path, str]:
    """Return the links of a plan that belong to a package of dpkg, with the name of the package."""
    return {link: name for link in plan.links if link.is_symlink() and (name := _package(link))}


def _package(path: Path) -> str:
    """The package that a file belongs to, or ""."""
    if shutil.which("dpkg-query") is None:
        return ""
    # dpkg knows a file by one path: /sbin may be a link to /usr/sbin.
    for known in {path, path.parent.resolve() / path.name}:
        done = _run("dpkg-query", "--search", str(known))
        if done.returncode == 0:
            return done.stdout.partition(":")[0]
    return ""


def is_running(scope: str) -> bool:
    """Whether systemd takes commands. `scope`: ``--user`` or ``--system``."""
    if shutil.which("systemctl") is None:
        return False
    done = _systemctl(scope, "is-system-running")
    return done.stdout.strip() in _RUNNING


def control(scope: str, *words: str) -> None:
    """Run systemctl. Raises :class:`FsmountError` with what it says if it fails."""
    done = _systemctl(scope, *words)
    if done.returncode:
        said = done.stderr.strip().replace("\n", " ") or f"it ended with {done.returncode}"
        raise FsmountError(f"systemctl {scope} {' '.join(words)}: {said}")


def _systemctl(scope: str, *words: str) -> subprocess.CompletedProcess[str]:
    return _run("systemctl", scope, *words)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _files(plan: Plan) -> Mapping[Path, str]:
    return plan.shared | plan.own


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def _points_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and Path(os.path.realpath(link)) == Path(os.path.realpath(target))
