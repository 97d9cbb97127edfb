"""Text as the tokens that are indexed and searched for.

A token is a run of letters and digits, in lower case and without accents. Scripts without spaces
between words (Chinese, Japanese, Thai and others) are cut into pairs of characters that follow each
other, and the last character: so any part of such a text is a sequence of tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Thai and Lao, Burmese, Khmer, Kana and Bopomofo, Han.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31f0-\u31ff"
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ASCII = re.compile(r"[a-z0-9]+")
_RUNS = re.compile(rf"(?P<spaceless>[{_SPACELESS}]+)|[^\W_{_SPACELESS}]+")
_ACCENTS = re.compile("[\u0300-\u036f]")
_IS_SPACELESS = re.compile(f"[{_SPACELESS}]")


def folded(text: str) -> str:
    """Return a text in lower case, without accents, and with one form for each character."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", _ACCENTS.sub("", apart)).casefold()


def runs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the runs of letters and digits in a folded text, and whether each is spaceless."""
    if text.isascii():
        for run in _ASCII.findall(text):
            yield run, False
        return
    for found in _RUNS.finditer(text):
        yield found[0], found["spaceless"] is not None


def tokens(text: str) -> list[str]:
    """Return the tokens of a text, in its order."""
    return tokens_of_folded(folded(text))


def tokens_of_folded(text: str) -> list[str]:
    """Return the tokens of a text that :func:`folded` returned, in its order."""
    if text.isascii():
        return _ASCII.findall(text)
    found: list[str] = []
    for run, spaceless in runs(text):
        if spaceless:
            found += pairs(run)
            found.append(run[-1])
        else:
            found.append(run)
    return found


def pairs(run: str) -> list[str]:
    """Return the pairs of neighbours in a spaceless run."""
    return [run[at : at + 2] for at in range(len(run) - 1)]


def is_spaceless(text: str) -> bool:
    """Whether a text has characters of a script without spaces."""
    return _IS_SPACELESS.search(text) is not None
