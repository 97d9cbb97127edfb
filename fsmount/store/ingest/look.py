"""The first step of the pipeline: look at what is in a file.

Several files are looked at at once; a look does not depend on other files.
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from fsmount import threads
from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.errors import NotExact, WorkerDied
from fsmount.store.frames import jobs
from fsmount.store.frames.jobs import Look, Transcoded
from fsmount.store.ingest.inputs import Inputs
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# JPEGs that are transcoded at once: one of 16 megapixels takes 700 MB of memory.
_TRANSCODING = 2


# So many files that follow each other are looked at by one worker. It is quick where a picture
# equals the one before: of 120 screenshots of a desktop each takes 33 ms after its predecessor, and
# 55 ms after the sixteenth before it.
_TOGETHER = 4


class Looker:
    """Sends looks to workers, with hints from earlier looks.

    `streams_bytes` is the number of bytes of deflate streams that each worker may keep.
    """

    def __init__(self, inputs: Inputs, workers: Workers, streams_bytes: int) -> None:
        self._inputs = inputs
        self._workers = workers
        self._streams_bytes = streams_bytes
        # The parameters found last, by folder and overall: files of one program share them.
        self._hints: dict[int, DeflateParams] = {}
        self._last_hint: DeflateParams | None = None
        self._transcoding = trio.Semaphore(_TRANSCODING)
        # Looks that run or wait for a worker.
        self._looks = 0
        # Set when the first file of the queue has passed its look.
        self._first = trio.Event()

    async def look(self, ino: int, path: Path, number: int) -> Look:
        """What a file turned out to be. A file that breaks workers is not a picture.

        `number` is the place of the file in the order of the queue. The caller calls
        :meth:`passed` for the first one, 0, if it is not looked at.

        Raises OSError.
        """
        if number:
            # Without hints each look would search for parameters, which takes longer than the rest.
            # All plans wait for the first file, so it goes first.
            await self._first.wait()
        try:
            return await self._look(ino, path, number)
        finally:
            self.passed(number)

    def passed(self, number: int) -> None:
        """Note that a file has been looked at, or needs no look. The others wait for the first."""
        if not number:
            self._first.set()

    async def _look(self, ino: int, path: Path, number: int) -> Look:
        """Do what :meth:`look` says, with the hints that are known now."""
        place = self._inputs.place(ino)
        folder = place[0] if place else 0
        known = (self._hints.get(folder), self._last_hint)
        hints = tuple(dict.fromkeys(hint for hint in known if hint is not None))
        self._looks += 1
        try:
            # Several looks keep the cores busy. With threads, each would take more time.
            alone = self._looks == 1
            seen = await self._workers.run(
                jobs.look,
                str(path),
                hints,
                self._streams_bytes,
                alone,
                order=number,
                series=number // _TOGETHER,
            )
        except OSError:
            raise
        except Exception as error:
            reason = why_raw(error, self._inputs.path(ino))
            return await threads.call(Kind.STAGED, jobs.look_raw, str(path), reason)
        finally:
            self._looks -= 1
        params = seen.picture.recipe.params if seen.picture is not None else None
        if isinstance(params, DeflateParams):
            self._hints[folder] = self._last_hint = params
        return seen

    async def transcode(self, ino: int, path: Path, sha256: bytes) -> Transcoded | str:
        """The smaller form of a JPEG, or the reason why there is none. Raises OSError."""
        try:
            async with self._transcoding:
                return await self._workers.run(jobs.transcode, str(path), sha256)
        except OSError:
            raise
        except Exception as error:
            return why_raw(error, self._inputs.path(ino))


def why_raw(error: Exception, path: object) -> str:
    """The reason, for `stats`, why a file is stored raw after `error`. Logs unforeseen errors."""
    if isinstance(error, NotExact):
        return str(error.detail)
    if isinstance(error, WorkerDied):
        _log.warning("%r cost two worker processes; it is stored raw", path)
        return "worker died"
    _log.error("%r is stored raw", path, exc_info=error)
    return "internal error"
