"""What to search for, from the words that a user types.

All words of a query must be visible at the same time. ``"two words"`` are words that follow each
other in a line. ``word*`` is any word that begins so, and ``*part*`` any word that has it inside.
A word with signs in it, such as ``6.2.1`` or ``/usr/share``, is a sequence of its parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

from fsmount.errors import UsageError
from fsmount.text.following import sequence
from fsmount.text.token_index import any_of, ended, present, quote, through
from fsmount.text.tokens import folded, is_spaceless, pairs, runs

_PARTS = re.compile(r'"([^"]*)"?|(\S+)')
# Letters that a wrong letter may be, for each script that has few.
_SCRIPTS = ("abcdefghijklmnopqrstuvwxyz0123456789", "абвгдежзийклмнопрстуфхцчшщъыьэюяё")
# If tokens can follow each other in more ways, slots are not asked for each.
_MANY = 200
_GREEK = "αβγδεζηθικλμνξοπρστυφχψως"


@dataclass(frozen=True, slots=True)
class Token:
    """One of some tokens; with `prefix` also those that begin with one of them.

    part : with this any token that has it inside; `texts` are those that are known, or some.
    """

    texts: tuple[str, ...]
    prefix: bool = False
    part: str = ""

    def matches(self, token: str) -> bool:
        """Whether a token of a word is meant."""
        if self.part:
            return self.part in token
        return token in self.texts or (self.prefix and token.startswith(self.texts))

    def present(self) -> str:
        """Return the expression of FTS5 for slots that have it."""
        return any_of(present(text, prefix=self.prefix) for text in self.texts)

    def ended(self) -> str:
        """Return the expression of FTS5 for slots in which it disappears somewhere."""
        return any_of(ended(text, prefix=self.prefix) for text in self.texts)


@dataclass(frozen=True, slots=True)
class Term:
    """Tokens that follow each other. `text`: as the user wrote them."""

    text: str
    tokens: tuple[Token, ...]


def parse(query: str) -> tuple[Term, ...]:
    """Return what has to be visible at the same time. Raises UsageError if it is nothing."""
    found: list[Term] = []
    for quoted, bare in _PARTS.findall(query):
        text = quoted or bare
        prefix = bool(bare) and bare.endswith("*")
        inside = bool(bare) and bare.startswith("*")
        tokens = _tokens(text, prefix=prefix or inside)
        if inside and len(tokens) == 1:
            part = tokens[0].texts[0]
            tokens = (Token((part,), prefix=True, part=part),)
        if tokens:
            found.append(Term(text.strip("*"), tokens))
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


def steady(terms: Sequence[Term]) -> str | None:
    """Return the expression of FTS5 for slots all of whose pictures show all terms.

    Others may do so, too. None if that cannot be told: tokens after each other.
    """
    tokens = [token for term in terms for token in term.tokens]
    if len(tokens) > len(terms):
        return None
    every = [[through(text, prefix=each.prefix) for text in each.texts] for each in tokens]
    return " AND ".join(map(any_of, every))


def expression(terms: Sequence[Term], *, ordered: bool) -> str:
    """Return the expression of FTS5 for slots that have all tokens, of which one disappears there.

    Other slots cannot have the end of a stretch. `ordered`: only slots in which the tokens of each
    term probably follow each other.
    """
    tokens = dict.fromkeys(token for term in terms for token in term.tokens)
    disappears = any_of(token.ended() for token in tokens)
    if len(tokens) == 1:
        return disappears
    every = [token.present() for token in tokens]
    if ordered:
        every += [_in_order(term.tokens) for term in terms if _is_listed(term.tokens)]
    return f"({' AND '.join(every)}) AND {disappears}"


def _is_listed(tokens: Sequence[Token]) -> bool:
    """Whether tokens follow each other in so few ways that all can be listed."""
    known = not any(token.prefix or token.part for token in tokens)
    return len(tokens) > 1 and known and prod(len(token.texts) for token in tokens) <= _MANY


def _in_order(tokens: Sequence[Token]) -> str:
    """Return the expression of FTS5 for slots in which tokens probably follow each other."""
    ways = product(*(token.texts for token in tokens))
    # Each way with its own tokens: with many ways, nearly each slot has the sequences of some.
    return any_of(
        f"({' AND '.join([*map(present, way), *(quote(sequence(*two)) for two in pairwise(way))])})"
        for way in ways
    )
