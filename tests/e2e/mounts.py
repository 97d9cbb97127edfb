"""Serve a store in a process of its own: ``python -m tests.e2e.mounts STORE DIR OPTIONS CACHE``."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

from fsmount.mount import reading_text
from fsmount.mount.options import parse_options
from fsmount.mount.session import MountRequest, serve
from fsmount.mount.unmount import unmount
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.ingest import large
from fsmount.store.packs import pack
from tests.e2e import slow_disk
from tests.support.paths import CHECKOUT

# If set to a number: the serving process seals a pack at this many bytes.
SEAL_BYTES = "FSMOUNT_TEST_SEAL_BYTES"
# If set to a number: files with more bytes than this become large files.
KEEP_BYTES = "FSMOUNT_TEST_KEEP_BYTES"
# If set: text is read at normal priority, since a machine that runs tests is never idle.
TEXT_FIRST = "FSMOUNT_TEST_TEXT_FIRST"
_TEXT_FIRST = """\
import sys
from fsmount.cli import main, text
text.be_last = lambda *, when_idle: None
main()
"""
# The text of a program `fsmount` that runs this checkout.
PROGRAM = f"""\
#!{sys.executable}
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from fsmount.cli import main
main()
"""
_ROOT = CHECKOUT
_DEVICE = Path("/dev/fuse")


def missing() -> str | None:
    """Why no kernel mount is possible here, or None."""
    return None if _DEVICE.exists() else f"{_DEVICE} does not exist"


class Mount:
    """A store and its mountpoint below `folder`. `options` are mount options, as after ``-o``."""

    def __init__(self, folder: Path, options: str = "", cache_bytes: int = 256 << 20) -> None:
        self.store = folder / "store"
        self.path = folder / "mnt"
        self.log = folder / "log"
        self.options = options
        self.cache_bytes = cache_bytes
        if not self.store.exists():
            config.make(self.store, Disk())
            self.path.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the serving process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the serving process. Returns when the mount is ready."""
        module = [sys.executable, "-m", "tests.e2e.mounts"]
        command = [*module, str(self.store), str(self.path), self.options, str(self.cache_bytes)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", self.log.read_text()

    def stop(self, drain: bool = False) -> None:
        """Unmount. Asserts that the process exits with 0."""
        assert self._process is not None
        unmount(self.path, drain=drain)
        assert self._process.wait(30) == 0, self.log.read_text()
        self._process = None

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and wait until the process ends. Returns its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(30)
        self._process = None
        return status

    def crash(self) -> None:
        """kill -9. The dead mount stays in the mount table."""
        self.signal(signal.SIGKILL)

    def clear(self) -> None:
        """Unmount the dead mount that a crash left."""
        subprocess.run(["umount", "-l", self.path], check=True)

    def clean(self) -> None:
        """End the process and unmount, in whatever state the test left them."""
        if self._process is not None:
            self.crash()
        if os.path.ismount(self.path) or not _answers(self.path):
            self.clear()


def _answers(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _text_first(root: Path) -> list[str]:
    """The command that reads the text of a store, at normal priority."""
    return [sys.executable, "-c", _TEXT_FIRST, "text", "--quiet", os.path.realpath(root)]


def main() -> None:
    pack.SEAL_BYTES = int(os.environ.get(SEAL_BYTES, pack.SEAL_BYTES))
    large.KEEP_BYTES = int(os.environ.get(KEEP_BYTES, large.KEEP_BYTES))
    if os.environ.get(TEXT_FIRST):
        reading_text.command = _text_first
    slow_disk.install()
    store, mountpoint, options, cache_bytes = sys.argv[1:5]
    chosen = dataclasses.replace(parse_options(options), cache_bytes=int(cache_bytes))
    request = MountRequest(Path(store), Path(mountpoint), chosen)
    serve(request, lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
