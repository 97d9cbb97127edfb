"""Slots as bytes."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.errors import Damaged
from fsmount.text import slots
from fsmount.text.results import Rectangle, Word
from fsmount.text.slots import Slot

numbers = st.integers(0, 1 << 17)
texts = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=8)


@st.composite
def any_slot(draw: st.DrawFn) -> Slot:
    pictures = draw(
        st.lists(st.tuples(st.integers(1, 1 << 40), st.integers(-(1 << 60), 1 << 60)), max_size=9)
    )
    words = []
    if pictures:
        for _ in range(draw(st.integers(0, 9))):
            first = draw(st.integers(0, len(pictures) - 1))
            last = draw(st.integers(first, len(pictures) - 1))
            place = Rectangle(draw(numbers), draw(numbers), draw(numbers), draw(numbers))
            words.append((Word(draw(texts), place), first, last, draw(st.booleans())))
    return slots.make(pictures, words)


def equal(one: Slot, two: Slot) -> bool:
    arrays = ("ino", "at_us", "boxes", "first", "last", "carried")
    same = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in arrays)
    return same and one.texts == two.texts


@given(any_slot())
def test_a_slot_comes_back(slot: Slot) -> None:
    assert equal(slots.unpack(slots.pack(slot)), slot)
    assert equal(slots.unpack(slots.pack(slot, fast=True)), slot)


@given(any_slot(), st.sets(st.integers(0, 8)))
def test_a_slot_without_some_pictures(slot: Slot, gone: set[int]) -> None:
    inos = {int(slot.ino[n]) for n in gone if n < slot.pictures}
    left = slot.without(inos)
    assert not inos & set(left.ino.tolist())
    for ino in set(left.ino.tolist()):
        if slot.ino.tolist().count(ino) == 1:
            assert left.words(ino) == slot.words(ino)
    assert all(left.first <= left.last)


@given(st.binary(max_size=400))
def test_other_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(Damaged):
        slots.unpack(data)


@given(any_slot(), st.data())
def test_a_changed_byte_is_damage_or_another_slot(slot: Slot, data: st.DataObject) -> None:
    stored = bytearray(slots.pack(slot))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    with suppress(Damaged):
        found = slots.unpack(bytes(stored))
        found.words(0)
        assert len(found.boxes) == len(found.texts) == len(found.carried) == len(found.last)
        assert all(found.last < found.pictures)
