"""Mount namespaces for tests that mount where no other test may see it."""

from __future__ import annotations

from pathlib import Path

# A new namespace has a copy of each mount. One of a test that runs meanwhile would be "in use
# elsewhere", so they go at once. The kernel writes some characters of a path as octal numbers.
_SCRIPT = r"""
keep=$1; shift
mapfile -t mounts < <(grep ' - fuse.fsmount ' /proc/self/mountinfo)
for mount in "${mounts[@]}"; do
    read -r -a words <<< "$mount"
    place=$(printf '%b' "${words[4]}")
    [ "$place" = "$keep" ] || umount -l --no-canonicalize -- "$place"
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
