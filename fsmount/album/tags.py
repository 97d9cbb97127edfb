"""Descriptions of photos by exiftool, as XML: one process for any number of photos."""

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
# exiftool prints a numbered mark even with -q.
_READY = b"{ready1}\n"
_END = b"</rdf:Description>"


class ExifTool:
    """A running exiftool; a context manager, for one thread at a time.

    Raises
    ------
    FsmountError
        On entering, if exiftool is not installed.
    """

    def __enter__(self) -> ExifTool:
        program = shutil.which("exiftool")
        if program is None:
            raise FsmountError(
                "exiftool is not installed; on Debian it is the package libimage-exiftool-perl"
            )
        self._link_folder: tempfile.TemporaryDirectory[str] | None = None
        self._process = subprocess.Popen(
            [*_parent_death_prefix(), program, "-stay_open", "True", "-@", "-"],
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
            pass  # It has died. `describe` has reported that.
        self._process.stdout.close()
        self._process.wait()
        if self._link_folder is not None:
            self._link_folder.cleanup()

    def describe(self, path: Path) -> bytes:
        """Return the whole ``rdf:Description`` of a file, an empty one if exiftool gives none.

        Raises
        ------
        FsmountError
            If exiftool ends.
        """
        assert self._process.stdin is not None
        name = os.fsencode(path.absolute())
        if b"\n" in name or b"\r" in name:
            # exiftool reads one file name a line, so a link stands in for this one.
            self._link_folder = self._link_folder or tempfile.TemporaryDirectory(prefix="fsmount-")
            link = Path(self._link_folder.name, "photo")
            link.unlink(missing_ok=True)
            link.symlink_to(path.absolute())
            name = os.fsencode(link)
        request = b"\n".join((b"-X", b"-q", b"-q", name, b"-execute1", b""))
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            answer = self._read_answer()
        except OSError as error:
            raise FsmountError(f"exiftool ended unexpectedly ({error})") from error
        found = _DESCRIPTION.search(answer)
        return (
            found[0] if found is not None and is_well_formed(found[0]) else _empty_description(path)
        )

    def _read_answer(self) -> bytes:
        """Read the output of one request."""
        assert self._process.stdout is not None
        lines = []
        while (line := self._process.stdout.readline()) != _READY:
            if not line:
                raise OSError("no answer")
            lines.append(line)
        return b"".join(lines)


def _parent_death_prefix() -> list[str]:
    """Return the start of a command line whose process dies with this one, even if killed.

    Without it exiftool would wait for requests without end. The shell covers the time before the
    death signal is set: if this process died then, the shell's parent is another one.
    """
    program = shutil.which("setpriv")
    if program is None:
        return []
    check = '[ "$PPID" = "$0" ] && exec "$@"'
    return [program, "--pdeathsig", "KILL", "sh", "-c", check, str(os.getpid())]


def _empty_description(path: Path) -> bytes:
    """Return a description without elements."""
    about = xml_escaped(os.fsencode(path.name).decode(errors="replace"))
    return b"<rdf:Description rdf:about='%s'>\n%s" % (about, _END)


def xml_escaped(text: str) -> bytes:
    """Escape text for XML, quotes included.

    A character that XML cannot hold becomes a question mark.
    """
    text = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
    for plain, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;")):
        text = text.replace(plain, code)
    return text.encode()


def is_well_formed(description: bytes) -> bool:
    """Return whether a description is one whole element, and so cannot break the XML around it."""
    parser = expat.ParserCreate("UTF-8")
    try:
        parser.Parse(b"<x xmlns:rdf='r'>" + description + b"</x>", True)
    except expat.ExpatError:
        return False
    return description.count(_END) == 1
