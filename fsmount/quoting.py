"""Names and texts for terminals and logs: no character of a name may control what shows it.

That is what control characters do (escape sequences, line breaks), but also line separators and
marks of direction of Unicode, and bytes that are no text.
"""

from __future__ import annotations

import os
import unicodedata
from itertools import groupby

# Control, format and surrogate characters, line and paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Format characters without which some scripts and emoji are not written right.
_JOINERS = "\u200c\u200d"
_SHORT = dict(zip("\a\b\t\n\v\f\r", "abtnvfr", strict=True))


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _escape(character: str) -> str:
    """A character as the shell writes it in ``$'…'``: by a letter, or its bytes in octal."""
    if character in _SHORT:
        return f"\\{_SHORT[character]}"
    try:
        data = os.fsencode(character)
    except UnicodeEncodeError:
        data = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)


def quoted(name: str) -> str:
    """A name in the quotes of the shell if it holds unsafe characters, as `ls` prints it.

    What is not quoted does not begin with a quote.
    """
    if not name.startswith("'") and escaped(name) == name:
        return name
    text = ""
    for unsafe, characters in groupby(name, _is_unsafe):
        if unsafe:
            text += f"$'{''.join(map(_escape, characters))}'"
        else:
            part = "".join(characters).replace("'", "'\\''")
            text += f"'{part}'"
    return text if text.startswith("'") else f"''{text}"


def escaped(line: str) -> str:
    """A line of text whose unsafe characters are written as backslash escapes."""
    if line.isprintable():
        return line
    return "".join(_escape(one) if _is_unsafe(one) else one for one in line)
