"""What was written on the screen: search, and the words of a picture with their places.

The words come from a database that `fsmount text` fills. It may be missing, or come later.
"""

from __future__ import annotations

from typing import Any

from fsmount import threads
from fsmount.errors import NoText, UsageError
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index
from fsmount.store.retention.taken import LocalClock
from fsmount.text.results import Hit
from fsmount.text.words import open_words
from fsmount.threads import Kind
from fsmount.web.table import DAY_US, day_text

MOST_HITS = 60


class Words:
    """Asks the database of words. Belongs to the trio task. Methods raise FsmountError, OSError."""

    def __init__(self, store: StoreFiles) -> None:
        self._store = store

    async def search(self, query: str) -> dict[str, Any]:
        """Return what a search finds, for the page.

        - has_words: whether there is a database.
        - wrong: why the query cannot be searched for; None if it can.
        - hits: the newest first; instead, more: as in :class:`~fsmount.text.results.Found`.
        """
        return await threads.call(Kind.ENTRY, _search, self._store, as_typed(query))

    async def of_picture(self, ino: int) -> dict[str, Any]:
        """Return the words of a picture: [text, x, y, width, height], in reading order.

        `read` says whether the picture was read.
        """
        return await threads.call(Kind.ENTRY, _words, self._store, ino)


def as_typed(query: str) -> str:
    """Return a query whose last word may go on, as long as somebody types it."""
    text = query.rstrip()
    last = text.rpartition(" ")[2]
    is_open = text == query and len(last) > 1 and last[-1].isalnum()
    return text + "*" if is_open and query.count('"') % 2 == 0 else query


def _search(store: StoreFiles, query: str) -> dict[str, Any]:
    """Do the work of :meth:`Words.search`. Runs in a thread, so it opens the index for itself."""
    nothing: dict[str, Any] = {
        "has_words": True,
        "wrong": None,
        "hits": [],
        "instead": [],
        "more": False,
    }
    clock = LocalClock()
    try:
        with open_words(store) as words:
            found = words.search(query, limit=MOST_HITS)
    except NoText:
        return {**nothing, "has_words": False}
    except UsageError as error:
        return {**nothing, "wrong": str(error)}
    index = Index(store.layout.index, Disk(), read_only=True)
    try:
        rows = [_hit(index, clock, hit) for hit in found.hits]
    finally:
        index.close()
    return {
        **nothing,
        "hits": [row for row in rows if row is not None],
        "instead": list(found.instead),
        "more": found.more,
    }


def _hit(index: Index, clock: LocalClock, hit: Hit) -> dict[str, Any] | None:
    """Return a hit for the page; None if its picture is gone."""
    found = index.cookie_of(hit.last.ino)
    if found is None:
        return None
    cookie, object_id = found
    first_us, wall_us = clock.wall(hit.first.at_us), clock.wall(hit.last.at_us)
    return {
        "id": cookie,
        "object": object_id,
        "day": day_text(wall_us // DAY_US),
        "second": wall_us % DAY_US // 10**6,
        "first_day": day_text(first_us // DAY_US),
        "first_second": first_us % DAY_US // 10**6,
        "pictures": hit.pictures,
        "seconds": hit.seconds,
        "snippet": hit.snippet,
        "places": [list(place) for place in hit.places],
    }


def _words(store: StoreFiles, ino: int) -> dict[str, Any]:
    """Do the work of :meth:`Words.of_picture`. Runs in a thread."""
    try:
        with open_words(store) as words:
            found = [[word.text, *word.place] for word in words.of_picture(ino)]
            return {"words": found, "read": words.is_read(ino)}
    except NoText:
        return {"words": [], "read": False}
