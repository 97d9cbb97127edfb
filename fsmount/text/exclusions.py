"""What is never read and never shown: areas of the screen, hours of the day, and patterns.

They stand in ``STORE/text.json``, which its owner alone can read: the database of words may be made
anew, and these must outlive it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fsmount.errors import FsmountError
from fsmount.store.layout import Layout
from fsmount.text.results import Rectangle
from fsmount.text.slots import Slot

_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of each day in local time: from minute `start` to before `end`."""

    start: int
    end: int

    def has(self, at_us: int) -> bool:
        """Whether a time (us since 1970) lies in these hours."""
        try:
            local = time.localtime(at_us / 1e6)
        except (OverflowError, OSError, ValueError):
            return False
        minute = local.tm_hour * 60 + local.tm_min
        if self.start <= self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)}"

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Return the hours of ``12:00-13:00``. Raises ValueError."""
        found = re.fullmatch(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)", text, re.ASCII)
        if found is None:
            raise ValueError(f"{text!r} is no time of day; write for example 12:00-13:00")
        start, end = (
            int(found[n]) * 60 + int(found[n + 1]) if int(found[n + 1]) < 60 else _DAY_MIN + 1
            for n in (1, 3)
        )
        if max(start, end) > _DAY_MIN or start == end:
            raise ValueError(f"{text!r} is no time of day; write for example 12:00-13:00")
        return cls(start, end)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def parse_area(text: str) -> Rectangle:
    """Return the rectangle of ``X,Y,WIDTH,HEIGHT``, in pixels. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})", text, re.ASCII)
    if found is None or not (int(found[3]) and int(found[4])):
        raise ValueError(f"{text!r} is no area; write X,Y,WIDTH,HEIGHT in pixels: 0,0,1920,32")
    return Rectangle(*(int(found[n]) for n in (1, 2, 3, 4)))


@dataclass(frozen=True)
class Exclusions:
    """What is never read and never shown.

    areas : where no word is read. hours : when no picture is read. redacted : regular expressions;
    words and parts of lines that match one are never shown.
    """

    areas: tuple[Rectangle, ...] = ()
    hours: tuple[Hours, ...] = ()
    redacted: tuple[str, ...] = ()

    @classmethod
    def read(cls, layout: Layout) -> Exclusions:
        """Return the exclusions of a store. Raises OSError, and FsmountError if they make no sense.

        Then nothing may be read or shown.
        """
        path = path_of(layout)
        try:
            value = json.loads(path.read_bytes())
            return cls(
                tuple(parse_area(text) for text in value.get("areas", ())),
                tuple(Hours.parse(text) for text in value.get("hours", ())),
                tuple(_pattern(text) for text in value.get("redact", ())),
            )
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError, AttributeError) as error:
            raise FsmountError(
                f"{path}: {error}. Remove the file, and set the exclusions again with fsmount"
                " exclude"
            ) from error

    @staticmethod
    def changed_ns(layout: Layout) -> int:
        """Return when the exclusions of a store were last changed; 0 if there are none."""
        try:
            return path_of(layout).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def write(self, layout: Layout) -> None:
        """Keep them as those of a store. Raises OSError."""
        path = path_of(layout)
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        out = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(out, "w") as file:
            json.dump(self.value(), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def value(self) -> dict[str, Any]:
        """Return them for JSON."""
        return {
            "areas": [",".join(map(str, area)) for area in self.areas],
            "hours": list(map(str, self.hours)),
            "redact": list(self.redacted),
        }

    def with_more(self, other: Exclusions) -> Exclusions:
        """Return these and others."""
        return Exclusions(
            tuple(dict.fromkeys(self.areas + other.areas)),
            tuple(dict.fromkeys(self.hours + other.hours)),
            tuple(dict.fromkeys(self.redacted + other.redacted)),
        )

    def is_hidden(self, at_us: int) -> bool:
        """Whether a picture of this time is not read."""
        return any(hours.has(at_us) for hours in self.hours)

    def hides(self, place: Rectangle) -> bool:
        """Whether a word at a place is not read: it touches an area."""
        return any(place.overlap(area) for area in self.areas)

    def unread(self, slot: Slot) -> Slot:
        """Return a slot without what must not have been read: hours and areas."""
        if self.hours:
            gone = [ino for ino, at in _pictures(slot) if self.is_hidden(at)]
            slot = slot.without(gone) if gone else slot
        if self.areas and len(slot.texts):
            x, y, width, height = slot.boxes.T
            kept = np.ones(len(x), bool)
            for area in self.areas:
                beside = (x >= area.right) | (x + width <= area.x)
                kept &= beside | (y >= area.bottom) | (y + height <= area.y)
            slot = slot if kept.all() else slot.where(kept)
        return slot

    def shown(self, slot: Slot) -> Slot:
        """Return a slot without all that must not be shown."""
        slot = self.unread(slot)
        if self.redacted and len(slot.texts):
            hidden = {text: self.redacts(text) for text in set(slot.texts)}
            kept = np.array([not hidden[text] for text in slot.texts], bool)
            slot = slot if kept.all() else slot.where(kept)
        return slot

    def redacts(self, text: str) -> bool:
        """Whether a pattern is found in a text."""
        return any(re.search(pattern, text, re.IGNORECASE) for pattern in self.redacted)

    def redact(self, line: str) -> str:
        """Return a line with … in place of what the patterns match."""
        for pattern in self.redacted:
            line = re.sub(pattern, "…", line, flags=re.IGNORECASE)
        return line

    def without_redaction(self) -> Exclusions:
        """Return these without patterns: what matters when pictures are read."""
        return replace(self, redacted=())


def path_of(layout: Layout) -> Path:
    """Return the path of the exclusions of a store."""
    return layout.root / "text.json"


def _pattern(text: str) -> str:
    """Return a regular expression. Raises ValueError."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


def parse_patterns(texts: Sequence[str]) -> tuple[str, ...]:
    """Return regular expressions. Raises ValueError if one makes no sense."""
    return tuple(map(_pattern, texts))


def _pictures(slot: Slot) -> list[tuple[int, int]]:
    return list(zip(slot.ino.tolist(), slot.at_us.tolist(), strict=True))
