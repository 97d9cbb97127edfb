"""Mount namespaces for tests that mount where no other test may see it."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT

# From unshare(2) and mount(2).
_CLONE_NEWNS = 0x20000
_MS_REC = 0x4000
_MS_SLAVE = 0x80000

# A new namespace has a copy of each mount. One of the same process would be "in use elsewhere", so
# they go at once. The kernel writes some characters of a path as octal numbers.
_SCRIPT = r"""
keep=$1; shift
mapfile -t mounts < <(grep -a ' - fuse.fsmount ' /proc/self/mountinfo)
for mount in "${mounts[@]}"; do
    read -r -a words <<< "$mount"
    place=$(printf '%b' "${words[4]}")
    [ "$place" = "$keep" ] && continue
    umount -l --no-canonicalize -- "$place" 2> /dev/null && continue
    grep -aqF " ${words[4]} " /proc/self/mountinfo && echo "cannot unmount $place" >&2
done
exec "$@"
"""


def leave_mounts_of_others() -> None:
    """Give this process a mount namespace of its own, if it may have one.

    Tests that run in other processes do not see what is mounted here, and do not keep it mounted.
    What is still mounted when the process ends goes with it. What is unmounted outside goes here,
    too. Call it in the main thread, before there are other ones: they would stay in the old
    namespace. Raises OSError if what is mounted here would be seen outside.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None):
        raise OSError(ctypes.get_errno(), "mounts here would be seen outside")


def own_namespace(keep: Path | None = None) -> list[str]:
    """The start of a command that runs in a mount namespace of its own.

    No filesystem of fsmount is mounted there, except at `keep`. What is mounted there is not seen
    elsewhere.
    """
    unshare = ["unshare", "--mount", "--propagation", "private"]
    return [*unshare, "bash", "-c", _SCRIPT, "bash", str(keep or "")]


def as_nobody() -> list[str]:
    """The start of a command that runs as the user nobody.

    The user may read all files: this checkout and the Python may lie in folders of root.
    """
    caps = "+dac_read_search"
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    return [*user, "--inh-caps", caps, "--ambient-caps", caps, "env", "HOME=/"]


def run_or_skip(
    command: Sequence[str], *, timeout_s: float = 100, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of this module with some more environment variables.

    Skips the test if the machine allows no namespace or no other user.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, **variables},
    )
    if done.stderr.startswith(("mount:", "unshare:", "setpriv:")):
        pytest.skip(done.stderr)
    return done


def with_fuse_for_all(folder: Path) -> list[str]:
    """The start of a command that runs in a namespace where every user may open /dev/fuse.

    `folder` gets a device node.
    """
    device = folder / "fuse"
    os.mknod(device, stat.S_IFCHR | 0o600, Path("/dev/fuse").stat().st_rdev)
    device.chmod(0o666)
    script = 'mount --bind "$1" /dev/fuse && shift && exec "$@"'
    return [*own_namespace(), "bash", "-c", script, "bash", str(device)]
