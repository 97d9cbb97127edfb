"""Search for what pictures showed. This is the interface for commands, the mount and the page.

Contract: one thread at a time uses a :class:`Words`. Its methods wait for the disk. It works beside
a mount, and beside a process that reads text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fsmount.errors import NoSuchInode, NoText
from fsmount.lru import Lru
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import TRASH, Index
from fsmount.text.database import SlotTimes, TextDatabase, open_text
from fsmount.text.exclusions import Exclusions
from fsmount.text.matching import Matches, in_reading_order, line_around, text_of
from fsmount.text.query import Term, Token, expression, near, parse, steady
from fsmount.text.results import Found, Hit, Rectangle, Shown, Word
from fsmount.text.slots import Slot
from fsmount.text.tokens import tokens

_DAY_US = 86_400 * 10**6
# Tokens that stand for one that is not there, at most.
_MOST_INSTEAD = 200
# If more tokens than this have a part inside, all slots are looked at, the newest first.
_MOST_PARTS = 1000
# A part of a word is looked for in other words if it is as long as this.
_LEAST_PART = 3
_SLOTS_BYTES = 32 << 20
# With more candidates it pays to ask in which no stretch ends.
_MANY_SLOTS = 500
# If a stretch goes back through more slots, it pays to ask which need no look.
_FEW_PARTS = 2


class _Part(NamedTuple):
    """A part of a stretch in one slot: its pictures `first` to `last`."""

    slot: int
    first: int
    last: int


class Steady(NamedTuple):
    """Slots all of whose pictures show what is searched for, and those whose next one does so, too.

    No stretch ends in the latter.
    """

    slots: frozenset[int]
    going_on: frozenset[int]


@contextmanager
def open_words(store: StoreFiles) -> Iterator[Words]:
    """Open the words of a store for searching. Any thread may call it.

    Raises :class:`NoText` if no text was read, TextDamaged, FsmountError, OSError.
    """
    with ExitStack() as closing:
        # An index of its own: that of the store belongs to another thread.
        index = Index(store.layout.index, Disk(), read_only=True)
        closing.callback(index.close)
        database = open_text(store.layout, index.identity())
        if database is None:
            raise NoText(store.path)
        closing.callback(database.close)
        yield Words(store, index, database)


class Words:
    """The words of a store; see the module. Methods raise TextDamaged, Damaged, OSError."""

    def __init__(self, store: StoreFiles, index: Index, database: TextDatabase) -> None:
        self._layout = store.layout
        self._index = index
        self._database = database
        self._exclusions = Exclusions.read(store.layout)
        self._changes: tuple[int, int, int] | None = None
        self._times = SlotTimes(*[np.empty(0, np.int64)] * 5)
        self._open: list[int] = []
        self._slots: Lru[int, Slot] = Lru(_SLOTS_BYTES)

    # -- pictures

    def of_picture(self, ino: int) -> list[Word]:
        """Return the words that a picture shows, in reading order; none if it was not read."""
        self._refresh()
        found = self._words(ino)
        lines = in_reading_order([word.place for word in found])
        return [found[n] for line in lines for n in line]

    def text(self, ino: int) -> str:
        """Return the text of a picture as lines, in reading order."""
        self._refresh()
        found = self._words(ino)
        return text_of([word.text for word in found], [word.place for word in found])

    def is_read(self, ino: int) -> bool:
        """Whether the text of a picture was read, as the picture is now."""
        read = self._database.slot_of(ino)
        return read is not None and read[0] == self._index.inode(ino).object_id

    def _words(self, ino: int) -> list[Word]:
        if self._shown(ino, 0) is None:
            return []
        row = self._database.slot_of(ino)
        if row is None or not row[1]:
            return []
        found = self._slot(row[1]).words(ino)
        return self._without_redacted(found)

    def _without_redacted(self, found: list[Word]) -> list[Word]:
        """Leave out the words of lines that a pattern matches across words."""
        if not self._exclusions.redacted:
            return found
        kept = []
        for line in in_reading_order([word.place for word in found]):
            texts = [found[n].text for n in line]
            if self._exclusions.redacts(" ".join(texts)):
                continue
            kept += [found[n] for n in line]
        return kept

    # -- search

    def search(
        self,
        query: str,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        under: bytes = b"",
        limit: int = 20,
    ) -> Found:
        """Return the stretches of pictures that show all words of a query, the newest first.

        Parameters
        ----------
        query : str
            See :mod:`fsmount.text.query`.
        since_us, until_us : int or None
            Only stretches that reach into this time, in us since 1970, both included.
        under : bytes
            Only pictures at this path of the store, or below it.
        limit : int
            Number of hits at most.

        Returns
        -------
        Found
            A word that no picture has is replaced by words that have it inside, or else by words
            that differ in one letter: `instead` has them.

        Raises
        ------
        UsageError
            If the query has no letters or digits.
        """
        terms = parse(query)
        with self._database.snapshot():
            self._refresh()
            search = _Search(self, since_us, until_us, under.strip(b"/"), limit)
            known = tuple(map(self._resolved, terms))
            found = search.run(known)
            if found.hits:
                return found
            for wider, instead in self._wider(known):
                others = search.run(wider)
                if others.hits:
                    return replace(others, instead=instead)
            return found

    def _resolved(self, term: Term) -> Term:
        """Return a term with the tokens that a part of a word may mean."""
        if not any(token.part for token in term.tokens):
            return term
        found = [replace(token, texts=self._with_part(token.part)) for token in term.tokens]
        return replace(term, tokens=tuple(found))

    def _wider(self, terms: Sequence[Term]) -> Iterator[tuple[tuple[Term, ...], tuple[str, ...]]]:
        """Yield terms in which words that are not there stand for others, and those others.

        If all words are there, but never together, one of them was misread: each in turn stands for
        others.
        """
        tokens = dict.fromkeys(token for term in terms for token in term.tokens)
        missing = [token for token in tokens if not self._is_known(token)]
        for wanted in (missing,) if missing else [[token] for token in tokens]:
            others = {token: self._others(token) for token in wanted}
            instead = tuple(dict.fromkeys(text for found in others.values() for text in found))
            if instead:
                yield tuple(_exchanged(term, others) for term in terms), instead

    def _others(self, token: Token) -> tuple[str, ...]:
        """Return tokens that may stand for one."""
        text = token.texts[0]
        if token.part or len(text) < _LEAST_PART:
            return ()
        found = () if self._is_known(token) else self._with_part(text)[:_MOST_INSTEAD]
        found = tuple(other for other in found if other != text)
        if found:
            return found
        unindexed = self._open_tokens()
        known = (
            other for other in near(text) if other in unindexed or self._database.has_term(other)
        )
        return tuple(known)

    def _with_part(self, part: str) -> tuple[str, ...]:
        """Return tokens that have a part inside, first the part itself."""
        found = [part]
        if len(part) >= _LEAST_PART:
            found += self._database.with_part(part, _MOST_PARTS)
        found += [token for token in self._open_tokens() if part in token]
        return tuple(dict.fromkeys(found))

    def _is_known(self, token: Token) -> bool:
        """Whether a slot has a token."""
        if any(token.matches(other) for other in self._open_tokens()):
            return True
        return any(self._database.has_term(text, prefix=token.prefix) for text in token.texts)

    def _open_tokens(self) -> set[str]:
        """Return the tokens of the slots that are not indexed yet."""
        return {
            token
            for number in self._open
            for text in self.slot(number).texts
            for token in tokens(text)
        }

    # -- what a search needs

    def _refresh(self) -> None:
        """Notice what another process has written."""
        changes = (*self._database.change_count(), Exclusions.changed_ns(self._layout))
        if changes != self._changes:
            self._times = self._database.slot_times()
            self._open = self._database.open_slots()
            self._slots = Lru(_SLOTS_BYTES)
            self._exclusions = Exclusions.read(self._layout)
            self._changes = changes

    def slot(self, number: int) -> Slot:
        """Return a slot without what must not be shown."""
        return self._slot(number)

    def _slot(self, number: int) -> Slot:
        found = self._slots.get(number)
        if found is None:
            found = self._exclusions.shown(self._database.slot(number))
            self._slots.put(number, found, 200 + 120 * found.count)
        return found

    def candidates(
        self, terms: Sequence[Term], since_us: int | None, until_us: int | None
    ) -> list[int]:
        """Return the slots in which a stretch may end, the newest first."""
        narrow = [term for term in terms if not any(map(_is_vast, term.tokens))]
        if narrow:
            ids = self._database.matching(expression(narrow, ordered=self._shows_all))
            ids = np.union1d(ids, np.array(self._open, np.int64))
        else:
            ids = self._times.id
        rows = np.searchsorted(self._times.id, ids)
        first, last = self._times.first[rows], self._times.last[rows]
        kept = np.ones(len(ids), bool)
        if since_us is not None:
            kept &= last >= since_us
        if until_us is not None:
            # A stretch that ends here begins a day before, at the earliest.
            kept &= first - _DAY_US <= until_us
        order = np.argsort(-last[kept], kind="stable")
        return [int(number) for number in ids[kept][order]]

    def after(self, number: int) -> int:
        """See :meth:`TextDatabase.next_slot`."""
        return self._database.next_slot(number)

    def before(self, number: int) -> tuple[int, int]:
        """Return the slot whose words go on in a slot, and its number of pictures; 0 for none."""
        before = int(self._times.previous[np.searchsorted(self._times.id, number)])
        at = int(np.searchsorted(self._times.id, before))
        if not before or at == len(self._times.id) or self._times.id[at] != before:
            return 0, 0
        return before, int(self._times.pictures[at])

    def steady(self, terms: Sequence[Term]) -> Steady:
        """Return slots all of whose pictures show all terms; others may, too."""
        wanted = steady(terms) if self._shows_all else None
        if wanted is None:
            return Steady(frozenset(), frozenset())
        ids = self._database.matching(wanted)
        before = self._times.previous[np.searchsorted(self._times.id, ids)]
        return Steady(frozenset(ids.tolist()), frozenset(np.intersect1d(before, ids).tolist()))

    @property
    def _shows_all(self) -> bool:
        """Whether the index tells what a slot shows: nothing that it has is excluded."""
        return self._exclusions == Exclusions()

    def _shown(self, ino: int, at_us: int) -> Shown | None:
        """Return a picture, if the store shows it as it was read."""
        try:
            inode = self._index.inode(ino)
        except NoSuchInode:
            return None
        row = self._database.slot_of(ino)
        name = self._index.folder_of(ino)
        if row is None or name is None or name[0] == TRASH or row[0] != inode.object_id:
            return None
        return Shown(ino, self._index.path(ino), at_us)

    def shown(self, slot: Slot, picture: int, under: bytes) -> Shown | None:
        """Return a picture of a slot, if the store shows it at a path below `under`."""
        found = self._shown(int(slot.ino[picture]), int(slot.at_us[picture]))
        if found is None or not _is_below(found.path, under):
            return None
        return found

    def snippet(self, slot: Slot, word: int, picture: int) -> str:
        """Return the line of text around a word, as it may be shown."""
        return self._exclusions.redact(line_around(slot, word, picture))


class _Search:
    """One search: its limits, and the slots that it has looked at."""

    def __init__(
        self, words: Words, since_us: int | None, until_us: int | None, under: bytes, limit: int
    ) -> None:
        self._words = words
        self._since_us = since_us
        self._until_us = until_us
        self._under = under
        self._limit = limit
        self._terms: Sequence[Term] = ()
        self._matches: dict[int, Matches] = {}
        self._steady: Steady | None = None

    def run(self, terms: Sequence[Term]) -> Found:
        """Search for terms."""
        self._terms, self._matches, self._steady = terms, {}, None
        hits: list[Hit] = []
        candidates = self._words.candidates(terms, self._since_us, self._until_us)
        if len(candidates) > _MANY_SLOTS:
            going_on = self._steady_slots().going_on
            candidates = [number for number in candidates if number not in going_on]
        for place, number in enumerate(candidates):
            hits += self._hits(number)
            if len(hits) >= self._limit:
                more = len(hits) > self._limit or place + 1 < len(candidates)
                hits.sort(key=lambda hit: -hit.last.at_us)
                return Found(hits[: self._limit], more=more)
        hits.sort(key=lambda hit: -hit.last.at_us)
        return Found(hits)

    def _hits(self, number: int) -> Iterator[Hit]:
        """Yield the hits that end in a slot."""
        matches = self._in(number)
        for first, last in reversed(matches.stretches()):
            after = self._words.after(number) if last == matches.slot.pictures - 1 else 0
            if last == matches.slot.pictures - 1 and after and self._begins(after):
                continue  # It ends in a later slot.
            parts = [_Part(number, first, last)]
            self._go_back(parts)
            hit = self._hit(parts)
            if hit is not None:
                yield hit

    def _go_back(self, parts: list[_Part]) -> None:
        """Add the parts of a stretch in earlier slots."""
        while parts[-1].first == 0:
            before, pictures = self._words.before(parts[-1].slot)
            if not before:
                return
            if len(parts) > _FEW_PARTS and before in self._steady_slots().slots:
                parts.append(_Part(before, 0, pictures - 1))
                continue
            stretches = self._in(before).stretches()
            if not stretches or stretches[-1][1] != self._in(before).slot.pictures - 1:
                return
            parts.append(_Part(before, *stretches[-1]))

    def _steady_slots(self) -> Steady:
        if self._steady is None:
            self._steady = self._words.steady(self._terms)
        return self._steady

    def _in(self, number: int) -> Matches:
        found = self._matches.get(number)
        if found is None:
            found = self._matches[number] = Matches(self._words.slot(number), self._terms)
        return found

    def _begins(self, number: int) -> bool:
        """Whether the first picture of a slot shows all terms."""
        visible = self._in(number).visible
        return bool(len(visible) and visible[0])

    def _hit(self, parts: Sequence[_Part]) -> Hit | None:
        """Return the hit of a stretch, whose parts are given from the newest to the oldest."""
        ends = self._existing(parts, newest=True)
        begins = self._existing(parts, newest=False)
        if ends is None or begins is None:
            return None
        number, picture, last = ends
        first = begins[2]
        if self._since_us is not None and last.at_us < self._since_us:
            return None
        if self._until_us is not None and first.at_us > self._until_us:
            return None
        matches = self._in(number)
        numbers = matches.places(picture)
        return Hit(
            first,
            last,
            sum(part.last - part.first + 1 for part in parts),
            (last.at_us - first.at_us) / 1e6,
            self._words.snippet(matches.slot, numbers[0], picture),
            tuple(matches.slot.place(n) for n in numbers),
        )

    def _existing(self, parts: Sequence[_Part], *, newest: bool) -> tuple[int, int, Shown] | None:
        """Return the newest or oldest picture of a stretch that the store still shows.

        The result is the slot, the number of the picture in it, and the picture.
        """
        for part in parts if newest else reversed(parts):
            pictures = range(part.first, part.last + 1)
            slot = self._in(part.slot).slot
            for picture in reversed(pictures) if newest else pictures:
                found = self._words.shown(slot, picture, self._under)
                if found is not None:
                    return part.slot, picture, found
        return None


def _exchanged(term: Term, others: Mapping[Token, tuple[str, ...]]) -> Term:
    """Return a term whose tokens may also be the `others` of each."""
    tokens = (replace(token, texts=token.texts + others.get(token, ())) for token in term.tokens)
    return replace(term, tokens=tuple(tokens))


def _is_vast(token: Token) -> bool:
    """Whether there may be more tokens than those that are listed."""
    return len(token.texts) > _MOST_PARTS


def _is_below(path: bytes, under: bytes) -> bool:
    return not under or path == under or path.startswith(under + b"/")


def rectangle_around(places: Sequence[Rectangle]) -> Rectangle:
    """Return the smallest rectangle around some, at least one."""
    x, y = min(each.x for each in places), min(each.y for each in places)
    right = max(each.right for each in places)
    bottom = max(each.bottom for each in places)
    return Rectangle(x, y, right - x, bottom - y)
