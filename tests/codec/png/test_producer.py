"""The program that wrote a PNG is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsmount.codec.deflate import deflate
from fsmount.codec.png.png import parse
from fsmount.codec.png.producer import producer
from fsmount.errors import NotExact
from tests.codec.png.test_png import plan
from tests.support.pngs import build, chunk


@pytest.mark.parametrize(
    ("head", "tail", "idat", "name"),
    [
        (b"", b"", 8192, None),
        (chunk(b"tEXt", b"Software\0gnome-screenshot"), b"", 8192, "gnome-screenshot"),
        (chunk(b"pHYs", bytes(9)), chunk(b"tEXt", b"Software\0Flame\tshot\n"), 9, "Flame shot"),
        (chunk(b"iTXt", b"Software\0\0\0de\0Programm\0K\xc3\xb6nig"), b"", 9, "König"),
        (chunk(b"iTXt", b"Software\0\1\0\0\0packed"), b"", 9, None),
        (chunk(b"tEXt", b"Software\0" + b"x" * 9000), b"", 9, "x" * 40),
        (chunk(b"tEXt", b"Softwares\0no"), b"", 9, None),
        (chunk(b"tEXt", b"Software\0") + chunk(b"iDOT", bytes(28)), b"", 9, "Apple"),
        (chunk(b"vpAg", bytes(9)), b"", 9, "ImageMagick"),
        (b"", b"", 65_445, "Windows"),
        (b"\xff\xff\xff\xfftEXt", b"\0", 9, None),
        (b"\0\0\0\2tEXt", b"cut off", 9, None),
    ],
)
def test_what_the_chunks_tell(head: bytes, tail: bytes, idat: int, name: str | None) -> None:
    assert producer(head, tail, idat) == name


def test_a_refusal_names_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deflate, "search", lambda *arguments, **options: None)
    data = build(replace(plan(), head=chunk(b"tEXt", b"Software\0Some Shot 1.2")))
    with pytest.raises(NotExact) as refusal:
        parse(data)
    assert refusal.value.detail == "unknown deflate encoder (Some Shot 1.2)"
    with pytest.raises(NotExact) as refusal:
        parse(build(plan()))
    assert refusal.value.detail == "unknown deflate encoder"
