"""File names that Linux allows and many programs handle wrongly."""

from __future__ import annotations

ODD_NAMES = [
    "Jürgen".encode(),
    # The last UTF-8 byte of each character is a space or a line break in latin-1.
    "à Å Ċ".encode(),
    "日本語 🎞".encode(),
    b"\xff\xfe not UTF-8",
    b"a,ro\\b\\101,c=d",
    b"#two words\n\t\v\f\r\x1c\x85 - ",
    b"-o",
    b"%F0 'quoted' \"$HOME\"",
    bytes(range(128, 256)),
]
