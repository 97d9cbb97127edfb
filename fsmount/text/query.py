"""What to search for, from the words that a user types.

All words of a query must be visible at the same time. ``"two words"`` are words that follow each
other in a line. ``word*`` is any word that begins so, and ``*part*`` any word that has it inside.
A word with signs in it, such as ``6.2.1`` or ``/usr/share``, is a sequence of its parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fsmount.errors import UsageError
from fsmount.text.database import any_of, quote
from fsmount.text.tokens import folded, is_spaceless, pairs, runs

_PARTS = re.compile(r'"([^"]*)"?|(\S+)')
# Letters that a wrong letter may be, for each script that has few.
_SCRIPTS = ("abcdefghijklmnopqrstuvwxyz0123456789", "абвгдежзийклмнопрстуфхцчшщъыьэюяё")
_GREEK = "αβγδεζηθικλμνξοπρστυφχψως"


@dataclass(frozen=True, slots=True)
class Token:
    """One of some tokens; with `prefix` also those that begin with one of them."""

    texts: tuple[str, ...]
    prefix: bool = False

    def matches(self, token: str) -> bool:
        """Whether a token of a word is meant."""
        return token in self.texts or (self.prefix and token.startswith(self.texts))

    def expression(self) -> str:
        """Return the expression of FTS5."""
        star = " *" if self.prefix else ""
        return any_of(quote(text) + star for text in self.texts)


@dataclass(frozen=True, slots=True)
class Term:
    """Tokens that follow each other. `text`: as the user wrote them. `inside`: a part of a word."""

    text: str
    tokens: tuple[Token, ...]
    inside: bool = False


def parse(query: str) -> tuple[Term, ...]:
    """Return what has to be visible at the same time. Raises UsageError if it is nothing."""
    found: list[Term] = []
    for quoted, bare in _PARTS.findall(query):
        text = quoted or bare
        prefix = bool(bare) and bare.endswith("*")
        inside = bool(bare) and bare.startswith("*")
        tokens = _tokens(text, prefix=prefix or inside)
        if tokens:
            found.append(Term(text.strip("*"), tokens, inside and len(tokens) == 1))
    if not found:
        raise UsageError(f"{query!r} has no letters or digits to search for")
    return tuple(found)


def _tokens(text: str, *, prefix: bool) -> tuple[Token, ...]:
    """Return the tokens of a text; with `prefix` the last one may go on."""
    found: list[Token] = []
    for run, spaceless in runs(folded(text)):
        if not spaceless:
            found.append(Token((run,)))
        elif len(run) == 1:
            # A single character is the beginning of a pair, or the last one of a text.
            found.append(Token((run,), prefix=True))
        else:
            found += [Token((pair,)) for pair in pairs(run)]
    if prefix and found:
        found[-1] = Token(found[-1].texts, prefix=True)
    return tuple(found)


def near(token: str) -> list[str]:
    """Return what a token may be with one letter changed, left out, added, or two exchanged."""
    if is_spaceless(token):
        return []
    letters = _SCRIPTS[0]
    for script in (_SCRIPTS[1], _GREEK):
        if any(letter in script for letter in token):
            letters = script
    found: dict[str, None] = {}
    for at in range(len(token) + 1):
        head, tail = token[:at], token[at:]
        if tail:
            found[head + tail[1:]] = None
        if len(tail) > 1:
            found[head + tail[1] + tail[0] + tail[2:]] = None
        for letter in letters:
            if tail:
                found[head + letter + tail[1:]] = None
            found[head + letter + tail] = None
    found.pop(token, None)
    found.pop("", None)
    return list(found)


def expression(terms: Sequence[Term]) -> str:
    """Return the expression of FTS5 for slots that have all tokens, of which one disappears there.

    Other slots cannot have the end of a stretch.
    """
    tokens = {token.expression(): None for term in terms for token in term.tokens}
    whole = " AND ".join(tokens)
    return f"({whole}) AND ended : {any_of(tokens)}"
