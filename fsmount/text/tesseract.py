"""The engine tesseract: one process reads all pictures.

A start of tesseract takes as long as reading some lines. So one process gets the pictures one
after the other: it reads the names of files from its stdin (``stream_filelist``). The files are
memory (memfd_create(2)), so no picture lies on a disk. Its answers are lines of TSV, which do not
say where an answer ends; so a tiny blank picture follows each picture, and the answer to that is
the end.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence

import numpy as np

from fsmount.errors import NoEngine
from fsmount.text.engines import Picture, ReadWord
from fsmount.text.results import Rectangle

_PROGRAM = "tesseract"
# Seconds for one picture.
_LIMIT_S = 300.0
# Pages of a layout that has no columns, tables or paragraphs: "sparse text".
_MODE = "11"
# Trained data that are no language.
_NO_LANGUAGES = {"osd", "equ", "snum"}
_BLANK = np.full((16, 16, 3), 255, np.uint8)
_COLUMNS = 12
# Pictures with a darker ground than this have light letters.
_DARK = 110
_WORD_LEVEL = "5"


class Tesseract:
    """See the module, and :class:`Engine`. `languages` as ``tesseract -l`` takes them: eng, deu."""

    def __init__(self, languages: Sequence[str] = ()) -> None:
        """Raises :class:`NoEngine` if tesseract or a language is not installed."""
        if shutil.which(_PROGRAM) is None:
            raise NoEngine("tesseract is not installed (Debian: apt install tesseract-ocr)")
        version, installed = _installed()
        missing = [name for name in languages if name not in installed]
        if missing or not installed:
            name = missing[0] if missing else "eng"
            raise NoEngine(
                f"tesseract has no language {name!r} (Debian: apt install tesseract-ocr-{name});"
                f" installed are: {', '.join(installed) or 'none'}"
            )
        self._languages = "+".join(languages or installed)
        self.name = f"tesseract {version} {self._languages}"
        self._process: subprocess.Popen[bytes] | None = None
        self._picture = os.memfd_create("picture", 0)
        self._blank = os.memfd_create("blank", 0)
        _write(self._blank, _BLANK)
        self._rest = b""

    def read(self, picture: Picture) -> list[ReadWord]:
        """See :meth:`Engine.read`."""
        for last_try in (False, True):
            try:
                return self._read(picture)
            except OSError as error:
                self._stop()
                if last_try:
                    raise NoEngine(f"tesseract failed ({error})") from error
        raise AssertionError

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._stop()
        os.close(self._picture)
        os.close(self._blank)

    def cpu_s(self) -> float:
        """Return the processor seconds of the running process, for measurements."""
        if self._process is None:
            return 0.0
        with open(f"/proc/{self._process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _read(self, picture: Picture) -> list[ReadWord]:
        """Read a picture. Raises OSError if the process does not answer."""
        process = self._process or self._start()
        _write(self._picture, _dark_on_light(picture))
        assert process.stdin is not None
        names = (f"/proc/self/fd/{fd}\n" for fd in (self._picture, self._blank))
        process.stdin.write("".join(names).encode())
        process.stdin.flush()
        return _words(self._answer(process))

    def _answer(self, process: subprocess.Popen[bytes]) -> list[list[bytes]]:
        """Return the rows of an answer. Raises OSError."""
        assert process.stdout is not None
        out = process.stdout.fileno()
        ends = time.monotonic() + _LIMIT_S
        pages = 0
        rows: list[list[bytes]] = []
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for at, line in enumerate(lines):
                row = line.split(b"\t")
                pages += row[0] == b"1"
                if pages == 2:
                    self._rest = b"\n".join([*lines[at + 1 :], self._rest])
                    return rows
                rows.append(row)
            if not select.select([out], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise TimeoutError("it took too long")
            data = os.read(out, 1 << 16)
            if not data:
                raise BrokenPipeError("its process has ended")
            self._rest += data

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process. Raises OSError."""
        # Lines must come when they are complete, not when a buffer is full.
        line_by_line = ["stdbuf", "-oL"]
        mode = ["--psm", _MODE, "-c", "stream_filelist=1", "-l", self._languages]
        self._process = subprocess.Popen(
            [*line_by_line, _PROGRAM, "-", "stdout", *mode, "tsv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._picture, self._blank],
            # Several threads cost more processor time in all.
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
        self._rest = b""
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            process.wait()


def _installed() -> tuple[str, list[str]]:
    """Return the version and the languages of tesseract. Raises :class:`NoEngine`."""
    try:
        version = subprocess.run([_PROGRAM, "--version"], capture_output=True, check=True).stdout
        listed = subprocess.run([_PROGRAM, "--list-langs"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoEngine(f"tesseract does not start ({error})") from error
    names = listed.decode(errors="replace").split("\n")[1:]
    found = [name for name in map(str.strip, names) if name and name not in _NO_LANGUAGES]
    return version.decode(errors="replace").split("\n")[0].partition(" ")[2], sorted(found)


def _dark_on_light(picture: Picture) -> Picture:
    """Return a picture with dark letters: tesseract would read light ones a second time."""
    return 255 - picture if np.median(picture[::2, ::2]) < _DARK else picture


def _write(memory: int, picture: Picture) -> None:
    """Write a picture to a file as PPM."""
    height, width, _ = picture.shape
    data = b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(picture).tobytes()
    os.ftruncate(memory, len(data))
    view = memoryview(data)
    at = 0
    while at < len(data):
        at += os.pwrite(memory, view[at:], at)


def _words(rows: Sequence[Sequence[bytes]]) -> list[ReadWord]:
    """Return the words in the rows of an answer."""
    found = []
    for row in rows:
        if len(row) != _COLUMNS or row[0] != _WORD_LEVEL.encode():
            continue
        text = row[11].decode(errors="replace").strip()
        if text:
            place = Rectangle(*map(int, row[6:10]))
            found.append(ReadWord(text, place, float(row[10])))
    return found
