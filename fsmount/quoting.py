"""Names and texts for terminals and logs: no character of a name may control the terminal.

Such characters are control characters (escape sequences, line breaks), Unicode's line separators
and marks of direction, and bytes that are not text.
"""

from __future__ import annotations

import os
import unicodedata
from itertools import groupby

# Control, format and surrogate characters, line and paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Format characters that some scripts and emoji need.
_JOINERS = "\u200c\u200d"
_SHORT = dict(zip("\a\b\t\n\v\f\r", "abtnvfr", strict=True))


def _is_unsafe(character: str) -> bool:
    """Return whether a character may control a terminal."""
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _escape(character: str) -> str:
    """Return a character as the shell writes it in ``$'...'``: by a letter or by octal bytes."""
    if character in _SHORT:
        return f"\\{_SHORT[character]}"
    try:
        data = os.fsencode(character)
    except UnicodeEncodeError:
        data = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)


def quoted(name: str) -> str:
    """Return a name in shell quotes if it holds unsafe characters, as ``ls`` prints it.

    A result without quotes never begins with a quote.
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
    """Return a line of text with unsafe characters as backslash escapes."""
    if line.isprintable():
        return line
    return "".join(_escape(one) if _is_unsafe(one) else one for one in line)
