"""Reads the text of all pictures of a store that nobody has read yet.

It is one process, which needs no lock of the store: it works beside a mount. Pictures that are not
encoded yet come later. Words of pictures that the store no longer shows are removed first, and
again at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from fsmount.errors import Damaged
from fsmount.lru import Lru
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index
from fsmount.store.retention.pictures import series_of
from fsmount.store.retention.taken import LocalClock
from fsmount.text.database import Series, TextDatabase
from fsmount.text.engines import Engine
from fsmount.text.exclusions import Exclusions
from fsmount.text.pictures import NoPictureError, Pictures, Seen
from fsmount.text.recorder import Recorder, Taken
from fsmount.text.results import Word
from fsmount.text.screen import Effort, Screen
from fsmount.text.wiping import in_parts, replace, shown, wipe_gone

_WORDS_BYTES = 16 << 20
# A prune leaves the words of what went to the process that reads text, if there is one.
_WIPE_EVERY_S = 600.0
# A store that gets pictures all the time would not let go of the last look.
_MOST_LOOKS = 3


@dataclass
class Summary:
    """What was done.

    read : pictures whose text was read. left : pictures that are still to be read. removed :
    pictures whose words were removed. problems : (path, reason) of pictures that cannot be read.
    """

    read: int = 0
    left: int = 0
    removed: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True)
class _ToRead:
    """A picture to read, and the folder that its series is named by."""

    folder: bytes
    taken: Taken


class Reading:
    """Reads text of a store into a database. `since_us`: no pictures before this time."""

    def __init__(
        self,
        store: StoreFiles,
        database: TextDatabase,
        exclusions: Exclusions,
        since_us: int | None = None,
    ) -> None:
        self._store = store
        self._index: Index = store.index
        self._database = database
        self._exclusions = exclusions
        self._since_us = since_us
        self._pictures = Pictures(store.layout, store.index)
        self._words: Lru[int, list[Word]] = Lru(_WORDS_BYTES)
        self._waiting: list[_ToRead] = []
        self._version = -1
        self._wiped_at = 0.0
        self.summary = Summary()

    # -- what is there

    def prepare(self) -> int:
        """Remove the words of pictures that are gone. Returns the number of pictures to read.

        Raises FsmountError, OSError.
        """
        self._wipe_gone()
        self._forget_excluded()
        self._waiting = sorted(
            self._unread(), key=lambda each: (each.folder, each.taken.at_us, each.taken.ino)
        )
        self.summary.left = len(self._waiting)
        return len(self._waiting)

    def _unread(self) -> Iterator[_ToRead]:
        read = self._database.pictures()
        clock = LocalClock()
        seen: set[int] = set()
        for folder, name, inode in shown(self._index):
            assert inode.object_id is not None
            at = int(np.searchsorted(read[:, 0], inode.ino))
            done = at < len(read) and read[at, 0] == inode.ino and read[at, 1] == inode.object_id
            if done or inode.ino in seen:
                continue
            taken = clock.taken(name, inode.mtime_ns).at_us
            if self._since_us is not None and taken < self._since_us:
                continue
            seen.add(inode.ino)
            yield _ToRead(series_of(folder), Taken(inode.ino, inode.object_id, taken))

    def _wipe_gone(self) -> None:
        """Remove the words of pictures that the store does not show as they were read."""
        # Asked before: what changes meanwhile is seen the next time.
        self._version = self._index.version()
        self._wiped_at = time.monotonic()
        self.summary.removed += wipe_gone(self._index, self._database).removed

    def _wipe_again(self) -> None:
        """As :meth:`_wipe_gone`, if the index has changed since."""
        if self._index.version() != self._version:
            self._wipe_gone()

    def _forget_excluded(self) -> None:
        """Remove words that were read before they were excluded."""
        kept = self._exclusions.without_redaction()
        text = str(kept.value())
        if self._database.fact("exclusions") == text:
            return
        for part in in_parts(self._database.slot_numbers()):
            with self._database.transaction():
                changes = {}
                for number in part:
                    slot = self._database.slot(number)
                    left = kept.unread(slot)
                    if len(left.texts) < len(slot.texts) or left.pictures < slot.pictures:
                        changes[number] = left
                replace(self._database, changes)
        self._database.wipe()
        self._database.set_fact("exclusions", text)

    # -- reading

    def run(
        self, engine: Engine, go_on: Callable[[], bool], progress: Callable[[int, int], None]
    ) -> Summary:
        """Read all that :meth:`prepare` has found, as long as `go_on` says so.

        `progress` gets (1, 0) for each picture. Raises NoEngine, TextDamaged, OSError.
        """
        for folder, group in groupby(self._waiting, key=lambda each: each.folder):
            self._read_folder(engine, folder, (each.taken for each in group), go_on, progress)
            if not go_on():
                break
        return self.summary

    def finish(self) -> None:
        """Remove the words of pictures that went meanwhile. Raises TextDamaged, Damaged, OSError.

        Who has just removed pictures waits a moment for the database, or leaves this to us.
        """
        for _ in range(_MOST_LOOKS):
            self._wipe_again()

    def _read_folder(
        self,
        engine: Engine,
        folder: bytes,
        pictures: Iterable[Taken],
        go_on: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> None:
        screens: dict[tuple[int, int], tuple[Screen, Recorder]] = {}
        for taken in pictures:
            if not go_on():
                return
            if time.monotonic() - self._wiped_at >= _WIPE_EVERY_S:
                # A recorder would write words of its slot again.
                screens.clear()
                self._wipe_again()
            if self._exclusions.is_hidden(taken.at_us):
                self._leave_out(taken)
            else:
                try:
                    self._read(engine, folder, taken, screens)
                except NoPictureError as error:
                    self._problem(taken, error)
                    self._leave_out(taken)
                except (Damaged, OSError) as error:
                    # It may be healed: it is tried again the next time.
                    self._problem(taken, error)
            self.summary.left -= 1
            progress(1, 0)

    def _read(
        self,
        engine: Engine,
        folder: bytes,
        taken: Taken,
        screens: dict[tuple[int, int], tuple[Screen, Recorder]],
    ) -> None:
        seen = self._pictures.get(taken.object)
        height, width, _ = seen.pixels.shape
        if (width, height) not in screens:
            screens[width, height] = self._opened(engine, Series(folder, width, height))
        screen, recorder = screens[width, height]
        if not recorder.follows(taken.at_us):
            screen = self._screen(engine)
            screens[width, height] = screen, recorder
        screen.show(seen, taken.object)
        recorder.add(taken, screen.visible)
        self._words.put(
            taken.object,
            [each.word for each in screen.visible],
            100 + 150 * len(screen.visible),
        )
        self.summary.read += 1

    def _screen(self, engine: Engine) -> Screen:
        return Screen(engine, self._earlier, self._exclusions.areas, self.summary.effort)

    def _opened(self, engine: Engine, series: Series) -> tuple[Screen, Recorder]:
        """Return a screen as its newest picture left it."""
        recorder = Recorder(self._database, self._database.series_id(series))
        screen = self._screen(engine)
        last = recorder.last
        if last is not None:
            row = self._database.slot_of(last[0])
            try:
                if row is not None:
                    screen.resume(self._pictures.get(row[0]), recorder.visible)
            except (Damaged, OSError, NoPictureError):
                recorder.close()
        return screen, recorder

    def _earlier(self, object_id: int) -> tuple[Seen, list[Word]] | None:
        """See :data:`fsmount.text.screen.Earlier`."""
        words = self._words.get(object_id)
        if words is None:
            row = self._database.picture_of(object_id)
            if row is None or not row[1] or self._index.known_object(object_id) is None:
                return None
            words = self._database.slot(row[1]).words(row[0])
            self._words.put(object_id, words, 100 + 150 * len(words))
        try:
            return self._pictures.get(object_id), words
        except (NoPictureError, OSError):
            return None

    def _leave_out(self, taken: Taken) -> None:
        with self._database.transaction():
            self._database.add_picture(taken.ino, taken.object, 0)

    def _problem(self, taken: Taken, error: Exception) -> None:
        path = os.fsdecode(self._index.path(taken.ino))
        reason = error.strerror or "" if isinstance(error, OSError) else str(error)
        self.summary.problems.append((path, reason))
