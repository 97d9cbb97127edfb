"""One run that reads the text of a store: database, engine and exclusions together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from fsmount.errors import NoEngine
from fsmount.store.files import StoreFiles
from fsmount.text.database import make_text, remove_text, writing
from fsmount.text.engines import Engine
from fsmount.text.exclusions import Exclusions
from fsmount.text.reading import Reading, Summary
from fsmount.text.tesseract import Tesseract

_NOTHING = Exclusions()
# Removing words of pictures that went takes seconds.
_WAIT_S = 5.0
ENGINES = ("tesseract", "rapidocr")


def engine_of(name: str, languages: Sequence[str] = ()) -> Engine:
    """Return an engine of ENGINES. Raises :class:`NoEngine` if it is not installed."""
    if name == "rapidocr":
        from fsmount.text.rapidocr import RapidOcr

        if languages:
            raise NoEngine("rapidocr reads Chinese and English at once; --languages is not for it")
        return RapidOcr()
    return Tesseract(languages)


def read_text(
    store: StoreFiles,
    engine: Callable[[], Engine],
    *,
    more: Exclusions = _NOTHING,
    since_us: int | None = None,
    afresh: bool = False,
    go_on: Callable[[], bool] = lambda: True,
    begun: Callable[[int], Callable[[int, int], None]] = lambda count: lambda files, nbytes: None,
) -> Summary:
    """Read the text of all pictures of a store that nobody has read yet. Waits for the disk.

    Parameters
    ----------
    store : StoreFiles
        The opened store. Nothing in it is changed but the database of words.
    engine : callable
        Makes the engine, if there is something to read.
    more : Exclusions
        Exclusions that the store gets from now on.
    since_us : int or None
        Read no pictures that were taken before, in us since 1970.
    afresh : bool
        Whether to throw away all words that were read before.
    go_on : callable
        Whether to go on; it is asked before each picture.
    begun : callable
        Gets the number of pictures to read; returns what is called with (1, 0) for each.

    Returns
    -------
    Summary
        What was done.

    Raises
    ------
    TextLocked
        If another process reads the text of the store.
    NoEngine, TextDamaged, FsmountError, OSError
        If the text cannot be read or written.
    """
    with writing(store.layout, _WAIT_S):
        exclusions = Exclusions.read(store.layout)
        if more != _NOTHING:
            exclusions = exclusions.with_more(more)
            exclusions.write(store.layout)
        if afresh:
            remove_text(store.layout)
        with make_text(store.layout, store.index.identity()) as database:
            reading = Reading(store, database, exclusions, since_us)
            count = reading.prepare()
            if count and go_on():
                with closing(engine()) as reader:
                    if database.fact("engine") is None:
                        database.set_fact("engine", reader.name)
                    reading.run(reader, go_on, begun(count))
            reading.finish()
            if reading.summary.read:
                database.empty_log()
            return reading.summary
