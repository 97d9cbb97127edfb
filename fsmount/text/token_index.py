"""The full-text index of the database of words: which slots have which tokens.

``words`` has the tokens of each indexed slot (FTS5 without content). ``vocabulary`` has each token
once, with its trigrams. :mod:`fsmount.text.tokens` has made the tokens. Expressions of FTS5 are
made here, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fsmount.text.connection import TextConnection
from fsmount.text.following import sequences
from fsmount.text.slots import Slot
from fsmount.text.tokens import tokens

Ints = npt.NDArray[np.int64]

CARRIED, THROUGH = "\u2192", "\u2194"
"""Stand before tokens that all pictures of the slot show (THROUGH), and before others that the next
slot goes on to show."""
_UNWIPED = "unwiped"
_MERGE_PAGES = 1000
# A part of a word is looked up only in words of this length and more.
_LEAST_VOCABULARY = 4
_MOST_KNOWN = 200_000

TOKEN_SCHEMA = (
    # The tokens of each slot: those that disappear in it, those with CARRIED or THROUGH before
    # them, and what tells which follow each other (following.sequence). `tokens.py` has made them,
    # so they are split at spaces alone.
    "CREATE VIRTUAL TABLE words USING fts5(tokens, content='', contentless_delete=1, detail=none,"
    " tokenize='ascii')",
    # FTS5 writes leaves of 4,050 bytes by default. The checksum of a page leaves too little room.
    "INSERT INTO words (words, rank) VALUES ('pgsz', 4000)",
    # The distinct tokens, for parts of words.
    "CREATE VIRTUAL TABLE vocabulary USING fts5(token, detail=none, columnsize=0,"
    " tokenize='trigram')",
    "INSERT INTO vocabulary (vocabulary, rank) VALUES ('pgsz', 4000)",
)


class TokenIndex(TextConnection):
    """The connection, with the full-text index. Methods raise TextDamaged, OSError."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        # Tokens that the vocabulary has: to look one up takes long.
        self._known: set[str] = set()
        super().__init__(path, read_only=read_only)

    def _undone(self) -> None:
        self._known.clear()

    # -- changes

    def _add_tokens(self, number: int, slot: Slot) -> None:
        """Index a slot. The caller has a transaction."""
        new = [token for token in set(tokens(slot.text)) if self._is_new(token)]
        self._insert_words(number, slot)
        for token in new:
            self._run("INSERT INTO vocabulary (token) VALUES (?)", token)
            self._remember(token)

    def _insert_words(self, number: int, slot: Slot) -> None:
        self._run("INSERT INTO words (rowid, tokens) VALUES (?,?)", number, _indexed(slot))

    def _is_new(self, token: str) -> bool:
        """Whether the vocabulary has to get a token."""
        if len(token) < _LEAST_VOCABULARY or token in self._known:
            return False
        if self.has_term(token):
            self._remember(token)
            return False
        return True

    def _remember(self, token: str) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(token)

    def _replace_tokens(self, number: int, slot: Slot) -> None:
        """Put other tokens in the place of those of an indexed slot. In a transaction.

        :meth:`_forget_tokens` comes last.
        """
        self._run("DELETE FROM words WHERE rowid = ?", number)
        if slot.pictures:
            self._insert_words(number, slot)

    def _forget_tokens(self, gone: Iterable[str]) -> None:
        """Take tokens out of the vocabulary that no slot has any more. In a transaction."""
        for token in gone:
            self._known.discard(token)
            if self._is_new(token):
                sql = "SELECT rowid FROM vocabulary WHERE vocabulary MATCH ? AND token = ?"
                for (row_id,) in self._all(sql, _trigrams(token), token):
                    self._run("DELETE FROM vocabulary WHERE rowid = ?", row_id)
        if gone:
            self.set_fact(_UNWIPED, "1")

    def wipe(self) -> None:
        """Leave nothing in the file of words that were replaced, also by a process that was killed.

        FTS5 only marks what is deleted: merging all of an index leaves it out.
        """
        if self.fact(_UNWIPED) is not None:
            self._merge("words")
            self._merge("vocabulary")
            self._run("DELETE FROM meta WHERE key = ?", _UNWIPED)
        self.empty_log()

    def _merge(self, table: str) -> None:
        """Bring an index into one segment, in steps, so that the log stays small."""
        sql = f"INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)"
        pages = -_MERGE_PAGES
        while True:
            before = self._db.total_changes()
            self._run(sql, pages)
            # The statement itself counts as one change.
            if self._db.total_changes() - before < 2:
                return
            pages = _MERGE_PAGES

    # -- search

    def matching(self, expression: str) -> Ints:
        """Return the slots that match an expression of FTS5, ascending: int64."""
        rows = self._all("SELECT rowid FROM words WHERE words MATCH ?", expression)
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def has_term(self, token: str, *, prefix: bool = False) -> bool:
        """Whether any indexed slot has a token, or with `prefix` one that begins so."""
        sql = "SELECT 1 FROM words WHERE words MATCH ? LIMIT 1"
        return self._one(sql, present(token, prefix=prefix)) is not None

    def with_part(self, part: str, most: int) -> list[str]:
        """Return tokens that have a part of three letters or more inside."""
        rows = self._all(
            "SELECT token FROM vocabulary WHERE vocabulary MATCH ? AND instr(token, ?) LIMIT ?",
            _trigrams(part),
            part,
            most,
        )
        return [row[0] for row in rows]


def _indexed(slot: Slot) -> str:
    """Return what `words` has of a slot: texts with spaces between them."""
    ended: set[str] = set()
    # Token -> the pictures that show it, a bit each.
    shown: dict[str, int] = {}
    spans = (slot.texts, slot.first.tolist(), slot.last.tolist(), slot.carried.tolist())
    for text, first, last, carried in zip(*spans, strict=True):
        pictures = (2 << last) - (1 << first)
        for token in tokens(text):
            shown[token] = shown.get(token, 0) | pictures
            if not carried:
                ended.add(token)
    found = ended | sequences(slot)
    every = (1 << slot.pictures) - 1
    for token, pictures in shown.items():
        if pictures == every:
            found.add(THROUGH + token)
        elif token not in ended:
            found.add(CARRIED + token)
    return " ".join(sorted(found))


def ended(token: str, *, prefix: bool = False) -> str:
    """Return the expression of FTS5 for slots in which a token disappears somewhere."""
    return quote(token) + (" *" if prefix else "")


def present(token: str, *, prefix: bool = False) -> str:
    """Return the expression of FTS5 for slots that have a token."""
    return any_of(ended(mark + token, prefix=prefix) for mark in ("", CARRIED, THROUGH))


def through(token: str, *, prefix: bool = False) -> str:
    """Return the expression of FTS5 for slots all of whose pictures show a token."""
    return ended(THROUGH + token, prefix=prefix)


def _trigrams(part: str) -> str:
    """Return the expression for tokens that have all trigrams of a part of 3 letters or more.

    The vocabulary does not know where in a token they are.
    """
    return " AND ".join(quote(part[at : at + 3]) for at in range(len(part) - 2))


def quote(token: str) -> str:
    """Return a token as FTS5 takes it in an expression."""
    return '"' + token.replace('"', '""') + '"'


def any_of(expressions: Iterable[str]) -> str:
    """Return the expression of FTS5 that matches one of several."""
    return "(" + " OR ".join(expressions) + ")"
