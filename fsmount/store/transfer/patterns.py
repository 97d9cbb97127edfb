"""Patterns that choose files, with the rules of rsync for ``--include`` and ``--exclude``.

The first rule that matches a path decides; a path that no rule matches is chosen. Nothing below a
folder that is left out is chosen. A pattern is matched with the path from the top of the transfer:

- With a ``/`` at its end it matches folders only.
- With a ``/`` at its beginning it must match from the top. Otherwise it matches the end of the
  path: the name, or as many names as it has parts.
- ``*`` and ``?`` match any characters, or one, but no ``/``; ``[...]`` one of a class; ``**`` also
  matches slashes. ``folder/***`` is the folder and all below it.
- A backslash takes the next character literally, but only in a pattern with one of ``*?[``.

Source: rsync(1), "PATTERN MATCHING RULES"; exclude.c (rule_matches) and lib/wildmatch.c of rsync.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_POSIX = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}
_NOTHING = rb"(?!)"


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``--include`` or ``--exclude``."""

    include: bool
    pattern: str | bytes


class Patterns:
    """Rules in their order. Paths are bytes without a slash at their beginning and end."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = [(rule.include, _matcher(_as_bytes(rule.pattern))) for rule in rules]

    def __bool__(self) -> bool:
        """Whether there are rules."""
        return bool(self._rules)

    def chooses(self, path: bytes, *, folder: bool) -> bool:
        """Whether an entry is chosen. The caller has asked about its folders before.

        The top of the transfer (an empty path) is always chosen.
        """
        if path:
            for include, matches in self._rules:
                if matches(path, folder):
                    return include
        return True

    def takes(self, path: bytes, mode: int, mtime_ns: int, object_id: int | None = None) -> bool:
        """Whether an entry is chosen, by all that is known of it. As :meth:`chooses`.

        A folder that is not taken is not gone through. `mtime_ns` is the time of last change in ns
        since 1970, `object_id` the object of a file in a store. Patterns look at neither;
        :class:`~fsmount.store.transfer.selecting.Selection` does.
        """
        return self.chooses(path, folder=stat.S_ISDIR(mode))

    @property
    def shows_folders(self) -> bool:
        """Whether folders are chosen as well, and not only gone through."""
        return True


ALL = Patterns()
"""No rules: chooses every entry."""

_Match = Callable[[bytes, bool], bool]


def _as_bytes(pattern: str | bytes) -> bytes:
    return pattern if isinstance(pattern, bytes) else pattern.encode(errors="surrogateescape")


def _matcher(pattern: bytes) -> _Match:
    """Return the function that matches (path, whether it is a folder) with a pattern."""
    folders_only = len(pattern) > 1 and pattern.endswith(b"/")
    if folders_only:
        pattern = pattern[:-1]
    anchored = pattern.startswith(b"/")
    slashes = pattern.count(b"/")
    wild = any(character in pattern for character in b"*?[")
    deep = b"**" in pattern
    deep_first = pattern.startswith(b"**")
    body = pattern[anchored:]
    expression = _expression(body) if wild else re.escape(body)
    if deep_first:
        # "**/" also matches at the top.
        before = rb"/?"
    elif anchored or not (slashes or deep):
        before = b""
    elif deep:
        before = rb"(?:.*/)?"
    else:
        before = b""
    with_slash = pattern.endswith(b"***")
    compiled = re.compile(before + rb"(?:" + expression + rb")", re.DOTALL)
    parts = slashes + 1 if slashes and not anchored and not deep else 0

    def matches(path: bytes, folder: bool) -> bool:
        if folders_only and not folder:
            return False
        if not slashes and not deep:
            path = path.rpartition(b"/")[2]
        elif parts:
            path = _last(path, parts)
        if deep_first:
            path = b"/" + path
        found = bool(path) and compiled.fullmatch(path) is not None
        return found or (with_slash and folder and compiled.fullmatch(path + b"/") is not None)

    return matches


def _last(path: bytes, parts: int) -> bytes:
    """Return the last names of a path; b"" if there are fewer."""
    names = path.split(b"/")
    return b"/".join(names[-parts:]) if len(names) >= parts else b""


def _expression(pattern: bytes) -> bytes:
    """Translate a pattern with wildcards to a regular expression."""
    out = []
    at = 0
    while at < len(pattern):
        character = pattern[at : at + 1]
        at += 1
        if character == b"*":
            stars = len(pattern) - at - len(pattern[at:].lstrip(b"*"))
            at += stars
            out.append(rb".*" if stars else rb"[^/]*")
        elif character == b"?":
            out.append(rb"[^/]")
        elif character == b"[":
            found, at = _class(pattern, at)
            out.append(found)
        else:
            if character == b"\\":
                # One at the end matches nothing.
                character, at = pattern[at : at + 1], at + 1
            out.append(re.escape(character) if character else _NOTHING)
    return b"".join(out)


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Translate a class whose first character is at `at`. Returns it and the place behind it.

    A class never matches a slash. One without an end matches nothing.
    """
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    members: list[bytes] = []
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if pattern.startswith(b"[:", at):
            end = pattern.find(b":]", at)
            if end < 0 or pattern[at + 2 : end] not in _POSIX:
                return _NOTHING, len(pattern)
            members.append(_POSIX[pattern[at + 2 : end]])
            at = end + 2
            continue
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in (b"", b"]"):
            high, at = _member(pattern, at + 1)
        if not low or not high:
            return _NOTHING, len(pattern)
        if low <= high:
            members.append(b"%s-%s" % (re.escape(low), re.escape(high)))
    inside = b"".join(members)
    if not inside:
        # Only ranges without members, as [z-a].
        return (rb"[^/]" if negated else _NOTHING), at + 1
    return rb"(?!/)[%s%s]" % (b"^" if negated else b"", inside), at + 1


def _member(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return a character of a class, which may be escaped, and the place behind it."""
    if pattern[at : at + 1] == b"\\":
        at += 1
    return pattern[at : at + 1], at + 1
