"""A daemon that mounts on demand, as systemd does for x-systemd.automount.

``python -m tests.support.automount FOLDER COMMAND...`` mounts autofs on the folder and prints a
line. When somebody looks into the folder, it runs the command in its own process group, and lets
the kernel go on when the command has ended. It ends with its standard input, and unmounts.

The packets and calls are those of the kernel's Documentation/filesystems/autofs.rst, version 5.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import selectors
import struct
import subprocess
import sys

_IOC_READY = 0x9360
_IOC_FAIL = 0x9361
_MISSING_DIRECT = 5
# protocol, type, token, device, inode, uid, gid, pid, tgid, length, name
_PACKET = struct.Struct("=iiIIQIIIII256s4x")
_MNT_DETACH = 2


def mount(folder: str) -> tuple[int, int]:
    """Mount autofs; returns the pipe of requests, and a descriptor of the folder."""
    receiver, sender = os.pipe()
    os.set_inheritable(sender, True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={sender},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    if libc.mount(b"test", os.fsencode(folder), b"autofs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    # The kernel has its own reference. It refuses all requests when the last reader has gone.
    os.close(sender)
    return receiver, os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def main() -> None:
    """Run the command that the module describes."""
    folder, *command = sys.argv[1:]
    receiver, place = mount(folder)
    print("ready", flush=True)
    with selectors.DefaultSelector() as waiting:
        waiting.register(receiver, selectors.EVENT_READ)
        waiting.register(0, selectors.EVENT_READ)
        while True:
            files = [key.fileobj for key, _ in waiting.select()]
            if 0 in files:
                break
            _, kind, token, *_ = _PACKET.unpack(os.read(receiver, _PACKET.size))
            assert kind == _MISSING_DIRECT, kind
            done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
            fcntl.ioctl(place, _IOC_FAIL if done.returncode else _IOC_READY, token)
    os.close(place)
    ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH)


if __name__ == "__main__":
    main()
