"""The tree that must be seen after each step of a script, as nodes in memory.

A :class:`Node` can be changed; a :data:`Tree` is the state of all paths at one moment.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """The known facts of one path. `mtime` is None if not known. `data` of a link is its target."""

    mode: int
    data: bytes
    mtime: int | None
    xattrs: tuple[tuple[bytes, bytes], ...]


Tree = dict[bytes, Seen]


def agrees(found: Tree, wanted: Tree) -> bool:
    """Whether the found tree equals the wanted one. Unknown times are not compared."""
    return found.keys() == wanted.keys() and all(
        seen._replace(mtime=wanted[path].mtime if wanted[path].mtime is None else seen.mtime)
        == wanted[path]
        for path, seen in found.items()
    )


def differences(found: Tree, wanted: Tree) -> str:
    """A short text on the first difference; "" if there is none."""
    for path in sorted(found.keys() | wanted.keys()):
        one, other = found.get(path), wanted.get(path)
        if one is None or other is None:
            return f"{path!r} is {'not there' if one is None else 'there'}"
        if not agrees({path: one}, {path: other}):
            brief = [
                (oct(s.mode), len(s.data), hash(s.data), s.mtime, s.xattrs) for s in (one, other)
            ]
            return f"{path!r} is {brief[0]}, should be {brief[1]}"
    return ""


@dataclass
class Node:
    """A file, link or folder of the model."""

    mode: int
    data: bytes = b""
    mtime: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    names: dict[bytes, Node] = field(default_factory=dict)
    ino: int = 0
    number: int = field(default_factory=itertools.count(1).__next__)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def seen(self) -> Seen:
        return Seen(self.mode, self.data, self.mtime, tuple(sorted(self.xattrs.items())))


def freeze(node: Node, path: bytes = b"") -> Tree:
    """The tree below a folder."""
    out: Tree = {}
    for name, inner in node.names.items():
        here = path + b"/" + name if path else name
        out[here] = inner.seen()
        if inner.is_folder:
            out |= freeze(inner, here)
    return out


def numbers(node: Node, path: bytes = b"") -> dict[bytes, int]:
    """For each path below a folder, the number of the node that it shows."""
    out: dict[bytes, int] = {}
    for name, inner in node.names.items():
        here = path + b"/" + name if path else name
        out[here] = inner.number
        out |= numbers(inner, here)
    return out


def write(node: Node, at: int, data: bytes) -> None:
    """Write bytes at an offset, as pwrite(2) does."""
    node.mtime = None
    if data:
        old = node.data.ljust(at, b"\0")
        node.data = old[:at] + data + old[at + len(data) :]


def truncate(node: Node, size: int) -> None:
    """Cut or extend a file to `size` bytes, as ftruncate(2) does."""
    node.data = node.data[:size].ljust(size, b"\0")
    node.mtime = None


def snapshot(root: Node) -> Callable[[], None]:
    """A function that restores the present state of the model."""
    nodes: dict[int, tuple[Node, dict[str, Any]]] = {}
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) not in nodes:
            state = {"mode": node.mode, "data": node.data, "mtime": node.mtime}
            nodes[id(node)] = node, state | {"xattrs": dict(node.xattrs), "names": dict(node.names)}
            todo += node.names.values()

    def undo() -> None:
        for node, state in nodes.values():
            for name, value in state.items():
                setattr(node, name, value)

    return undo
