"""Mount namespaces for tests that mount where no other test may see it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT

# A new namespace has a copy of each mount. One of a test that runs meanwhile would be "in use
# elsewhere", so they go at once. The kernel writes some characters of a path as octal numbers.
_SCRIPT = r"""
keep=$1; shift
mapfile -t mounts < <(grep ' - fuse.fsmount ' /proc/self/mountinfo)
for mount in "${mounts[@]}"; do
    read -r -a words <<< "$mount"
    place=$(printf '%b' "${words[4]}")
    [ "$place" = "$keep" ] && continue
    # Here, too, a mount goes when its test removes the folder.
    umount -l --no-canonicalize -- "$place" 2> /dev/null && continue
    grep -qF " ${words[4]} " /proc/self/mountinfo && echo "cannot unmount $place" >&2
done
exec "$@"
"""


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
