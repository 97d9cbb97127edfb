"""Extended attributes: stored ones, and virtual ones that tell how a file is kept.

``user.*``, ``trusted.*`` and ``security.*`` are stored. ``user.fsmount.*`` is virtual: read-only
and computed on request. It is not listed, because programs that copy all listed attributes
(``cp -a``, ``rsync -X``) would try to set it on the copy. Only ``user.fsmount.keep`` is stored like
other attributes: a prune keeps such a file. ``system.*`` (access control lists) is
not supported.
"""

from __future__ import annotations

import errno
import os

import fsmount
from fsmount.mount.attributes import NAME_BYTES, failure
from fsmount.store.index import ROOT, Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.retention.pictures import KEEP_XATTR

_VIRTUAL = b"user.fsmount."
_STORED = (b"user.", b"trusted.", b"security.")
_LABEL = b"security.selinux"
_VALUE_BYTES = 65536


def get(store: ReadStore, node: Inode, size: int, name: bytes) -> bytes:
    """One attribute's value; `size` is the file's size now. Raises OSError ENODATA, ENOTSUP."""
    if name.startswith(_VIRTUAL) and name != KEEP_XATTR:
        value = _virtual(store, node, size, name[len(_VIRTUAL) :])
    else:
        _check_name(name)
        value = store.index.get_xattr(node.ino, name)
    if value is None:
        # `ls -l` asks for this label of each file, unless ENOTSUP tells it that there are none.
        raise failure(errno.ENOTSUP if name == _LABEL else errno.ENODATA)
    return value


def names(store: ReadStore, node: Inode) -> list[bytes]:
    """The names of the stored attributes."""
    return list(store.index.xattrs(node.ino))


def put(store: ReadStore, node: Inode, name: bytes, value: bytes) -> None:
    """Set or replace. Raises OSError EPERM (read-only name), ENOTSUP, ERANGE, E2BIG."""
    _check_change(name)
    if len(value) > _VALUE_BYTES:
        raise failure(errno.E2BIG)
    store.index.set_xattr(node.ino, name, value)


def drop(store: ReadStore, node: Inode, name: bytes) -> None:
    """Remove. Raises OSError EPERM (read-only name), ENOTSUP, ENODATA."""
    _check_change(name)
    if not store.index.remove_xattr(node.ino, name):
        raise failure(errno.ENODATA)


def _check_change(name: bytes) -> None:
    if name.startswith(_VIRTUAL) and name != KEEP_XATTR:
        raise failure(errno.EPERM)
    _check_name(name)


def _check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES:
        raise failure(errno.ERANGE)
    if not name.startswith(_STORED):
        raise failure(errno.ENOTSUP)


def _virtual(store: ReadStore, node: Inode, size: int, name: bytes) -> bytes | None:
    if node.ino == ROOT:
        return _of_mount(store, name)
    if name == b"remote":
        return _remote(store, node)
    if node.staged is not None:
        of_staged = {b"kind": "staged", b"stored_bytes": str(size), b"depth": "0"}
        text = of_staged.get(name)
    elif node.object_id is not None:
        kept = store.index.object(node.object_id)
        of_object = {
            b"kind": kept.kind,
            b"stored_bytes": str(kept.length),
            b"depth": str(kept.depth),
            b"sha256": kept.sha256.hex(),
        }
        text = of_object.get(name)
    else:
        return None
    return None if text is None else text.encode()


def _remote(store: ReadStore, node: Inode) -> bytes | None:
    """The URLs whose last push has the bytes of a file, one a line; None if nothing was pushed."""
    if not store.pushed or (node.staged is None and node.object_id is None):
        return None
    if node.object_id is None:
        return b""
    kept = store.index.object(node.object_id)
    found = [each.url for each in store.pushed if each.has(kept.pack, kept.offset + kept.length)]
    return os.fsencode("\n".join(found))


def _of_mount(store: ReadStore, name: bytes) -> bytes | None:
    if name == b"store":
        return os.fsencode(store.name)
    if name == b"staged":
        return str(store.pending()).encode()
    if name == b"version":
        return fsmount.__version__.encode()
    if name == b"pid":
        return str(os.getpid()).encode()
    if name == b"read_only":
        return b"%d" % store.read_only
    return None
