"""Areas, hours and patterns on the command line: what is never read and never shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import click

from fsmount.text.exclusions import Exclusions, Hours, parse_area, parse_patterns
from fsmount.text.results import Rectangle

T = TypeVar("T")


class _Parsed(click.ParamType, Generic[T]):  # type: ignore[type-arg]
    """A value that a function makes of the text; it raises ValueError."""

    def __init__(self, parse: Callable[[str], T], kind: type[T]) -> None:
        self._parse = parse
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return the value; fail if the text is malformed."""
        if isinstance(value, self._kind) and not isinstance(value, str):
            return value
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AreaType(_Parsed[Rectangle]):
    """X,Y,WIDTH,HEIGHT in pixels."""

    name = "x,y,width,height"

    def __init__(self) -> None:
        super().__init__(parse_area, Rectangle)


class HoursType(_Parsed[Hours]):
    """A part of each day: 12:00-13:00, in local time."""

    name = "hh:mm-hh:mm"

    def __init__(self) -> None:
        super().__init__(Hours.parse, Hours)


class PatternType(_Parsed[str]):
    """A regular expression."""

    name = "pattern"

    def __init__(self) -> None:
        super().__init__(lambda text: parse_patterns([text])[0], str)


def exclusion_lines(found: Exclusions) -> Iterator[str]:
    """Yield exclusions in words."""
    for area in found.areas:
        yield f"area {area.x},{area.y},{area.width},{area.height} is not read"
    for hours in found.hours:
        yield f"pictures of {hours} are not read"
    for pattern in found.redacted:
        yield f"what matches {pattern!r} is not shown"
    if found == Exclusions():
        yield "nothing is excluded"
