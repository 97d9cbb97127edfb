"""Stores that are pushed, pulled, and read in place."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fsmount.mount.attributes import Caller
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.remote import blocks, fetching
from fsmount.remote.encryption import age
from fsmount.remote.opening import FirstRecipients, Unlock, open_for_push
from fsmount.remote.pull import PullSummary, pull
from fsmount.remote.push import PushSummary, push
from fsmount.remote.reading import Connect, for_reading, remote_stores
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.disk.disk import Disk
from fsmount.store.read_store import ReadStore
from fsmount.store.store import open_read_store
from tests.support.encoding import forget_caches

BLOCK = 4096
"""Bytes of a block in tests."""


def use_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read stores at URLs in blocks of `size` bytes."""
    monkeypatch.setattr(blocks, "BLOCK", size)
    monkeypatch.setattr(fetching, "BLOCK", size)


def pushed(root: Path, url: str, *, reread: bool = False) -> PushSummary:
    """Push a store. Opens it for reading."""
    with open_read_store(root, elsewhere=True) as store:
        return push(store, transport_to(url), reread=reread)


def pulled(url: str, dest: Path, *, disk: Disk | None = None) -> PullSummary:
    """Pull the newest state."""
    return pull(transport_to(url), dest, disk=disk)


def objects_of(url: str) -> dict[str, bytes]:
    """All objects at a URL by name."""
    remote = transport_to(url)
    folders = ("packs", "tails", "index", "staged", "raw", "state")
    return {name: remote.get(name) for folder in folders for name, _ in remote.list(folder)}


# The public key of a key of ssh that nobody has.
SSH_PUBLIC = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0hPX1zt8BUvJQ6aZXaCNrT6ccqRVDkHG5d0a7hWZyP a@b\n"
)


def new_identity(folder: Path, name: str = "identity") -> tuple[Path, str]:
    """Make a key of age. Return the file of the secret key, and the public key."""
    secret, public = age.new_identity()
    path = folder / name
    path.write_text(f"# public key: {public}\n{secret}\n")
    return path, public


def public_key(identity: Path) -> str:
    """The public key of a file of :func:`new_identity`."""
    return identity.read_text().split("\n", maxsplit=1)[0].removeprefix("# public key: ")


def opened_to_push(
    root: Path, url: str, identity: Path | None = None, recipients: Sequence[str] = ()
) -> Transport:
    """The transport of `push --encrypt`."""
    with open_read_store(root, elsewhere=True) as store:
        return open_for_push(
            transport_to(url),
            store.index.identity(),
            Unlock(identity),
            encrypt=FirstRecipients(recipients),
        )


def push_through(root: Path, remote: Transport, *, reread: bool = False) -> PushSummary:
    """Push a store by a transport."""
    with open_read_store(root, elsewhere=True) as store:
        return push(store, remote, reread=reread)


def quickly_locked(secret: str, passphrase: str) -> bytes:
    """As :func:`age.locked`, with a scrypt that takes milliseconds."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    label = b"age-encryption.org/v1"
    wrap = hashlib.scrypt(
        passphrase.encode(), salt=label + b"/scrypt" + salt, n=1 << 10, r=8, p=1, dklen=32
    )
    wrapped = ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, None)
    head = label + b"\n-> scrypt " + _base64(salt) + b" 10\n" + _base64(wrapped) + b"\n---"
    mac = hmac.digest(_derived(file_key, b"", b"header"), head, "sha256")
    body = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    text = body.encrypt(bytes(11) + b"\1", f"{secret}\n".encode(), None)
    return head + b" " + _base64(mac) + b"\n" + nonce + text


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(key)


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


async def read_file(filesystem: StoreFilesystem, ino: int) -> bytes:
    """Open, read and close a file, as the kernel does."""
    handle = await filesystem.open(ino, os.O_RDONLY, Caller(0, 0, 0))
    try:
        data = b""
        while more := await filesystem.read(handle, len(data), 128 << 10):
            data += more
        return data
    finally:
        await filesystem.release(handle)


async def read_all(store: ReadStore) -> dict[bytes, bytes]:
    """All files of a store that is being read, through the filesystem of a mount."""
    filesystem = StoreFilesystem(store, None)
    found = {}
    for path, node in store.index.walk():
        if stat.S_ISREG(node.mode):
            found[path] = await read_file(filesystem, node.ino)
    return found


def shown_in_place(
    url: str, caches: Path, *, budget: int = 1 << 30, connect: Connect = for_reading
) -> dict[bytes, bytes]:
    """All files at a URL, read in place by one mount."""
    forget_caches()

    async def read() -> dict[bytes, bytes]:
        async with remote_stores(url, caches, budget=budget, connect=connect) as stores:
            found: dict[bytes, bytes] = {}
            for name, store in stores.items():
                above = os.fsencode(f"{name}/") if name else b""
                found |= {above + path: data for path, data in (await read_all(store)).items()}
            return found

    return trio.run(read)


class Counting:
    """A transport that notes each call: name of the call, and of the object."""

    def __init__(self, remote: Transport, calls: list[tuple[str, str]]) -> None:
        self.url = remote.url
        self._remote = remote
        self._calls = calls

    def __getattr__(self, name: str) -> object:
        function = getattr(self._remote, name)

        def call(*args: object) -> object:
            self._calls.append((name, str(args[0]) if args else ""))
            return function(*args)

        return call


def counted(calls: list[tuple[str, str]]) -> Connect:
    """Connects as a mount does, and notes all calls."""
    return lambda url: Counting(for_reading(url), calls)  # type: ignore[return-value]
