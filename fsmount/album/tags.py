"""What exiftool says of photos, as XML: one process for any number of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.parsers import expat

from fsmount.errors import FsmountError

_DESCRIPTION = re.compile(rb"<rdf:Description\b.*</rdf:Description>", re.DOTALL)
# With a number exiftool says it even when told to be quiet.
_READY = b"{ready1}\n"
_END = b"</rdf:Description>"


class ExifTool:
    """A running exiftool; a context manager. Not for two threads at once."""

    def __enter__(self) -> ExifTool:
        program = shutil.which("exiftool")
        if program is None:
            raise FsmountError(
                "exiftool is not installed; on Debian it is the package libimage-exiftool-perl"
            )
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._process = subprocess.Popen(
            [*_dying_with_us(), program, "-stay_open", "True", "-@", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"-stay_open\nFalse\n")
            self._process.stdin.close()
        except OSError:
            pass  # it has died; whoever needed it was told
        self._process.stdout.close()
        self._process.wait()
        if self._links is not None:
            self._links.cleanup()

    def describe(self, path: Path) -> bytes:
        """The ``rdf:Description`` of a file, whole; an empty one if exiftool has none to give."""
        assert self._process.stdin is not None
        name = os.fsencode(path.absolute())
        if b"\n" in name or b"\r" in name:
            # The list of files has one a line.
            self._links = self._links or tempfile.TemporaryDirectory(prefix="fsmount-")
            link = Path(self._links.name, "photo")
            link.unlink(missing_ok=True)
            link.symlink_to(path.absolute())
            name = os.fsencode(link)
        request = b"\n".join((b"-X", b"-q", b"-q", name, b"-execute1", b""))
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            answer = self._answer()
        except OSError as error:
            raise FsmountError(f"exiftool ended in the middle of its work ({error})") from error
        found = _DESCRIPTION.search(answer)
        return found[0] if found is not None and is_well_formed(found[0]) else _empty(path)

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        lines = []
        while (line := self._process.stdout.readline()) != _READY:
            if not line:
                raise OSError("no answer")
            lines.append(line)
        return b"".join(lines)


def _dying_with_us() -> list[str]:
    """What a command begins with whose process must not outlive this one, even killed: exiftool
    goes on waiting for requests when there is nobody to write any.

    The shell is for the moment before the death signal is set: who was killed in it is no longer
    the parent.
    """
    program = shutil.which("setpriv")
    if program is None:
        return []
    check = '[ "$PPID" = "$0" ] && exec "$@"'
    return [program, "--pdeathsig", "KILL", "sh", "-c", check, str(os.getpid())]


def _empty(path: Path) -> bytes:
    about = escaped(os.fsencode(path.name).decode(errors="replace"))
    return b"<rdf:Description rdf:about='%s'>\n%s" % (about, _END)


def escaped(text: str) -> bytes:
    """Text as it may stand in XML, quotes included; what it cannot hold becomes a question
    mark."""
    text = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
    for plain, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;")):
        text = text.replace(plain, code)
    return text.encode()


def is_well_formed(description: bytes) -> bool:
    """Whether this is one whole element, so that it cannot spoil the file it is put into."""
    parser = expat.ParserCreate("UTF-8")
    try:
        parser.Parse(b"<x xmlns:rdf='r'>" + description + b"</x>", True)
    except expat.ExpatError:
        return False
    return description.count(_END) == 1
