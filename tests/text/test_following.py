"""Which words follow each other, against the rule word by word; and the index of that."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from fsmount.text import slots
from fsmount.text.following import followers, may_follow, sequence, sequences
from fsmount.text.query import expression, parse
from fsmount.text.results import Rectangle, Word
from fsmount.text.slots import Slot
from fsmount.text.words import Words
from tests.support.written_words import START_US, Line, WrittenWords

_TEXTS = ("one", "two", "three", "6.2", "/usr/doc", "日本語", "…", "one")


def any_slot(chance: random.Random, words: int, pictures: int = 5) -> Slot:
    """Words in crooked lines of all heights, some on top of others, as they come in a real slot."""
    made = []
    for _ in range(words):
        first = chance.randrange(pictures)
        x, line = chance.randrange(0, 400, 7), chance.randrange(9)
        place = Rectangle(x, 20 * line + chance.randint(-4, 4), chance.randint(3, 60),
                          chance.choice((1, 7, 10, 12, 13, 60)))  # fmt: skip
        word = Word(chance.choice(_TEXTS), place)
        made.append((word, first, chance.randint(first, pictures - 1), False))
    return slots.make([(n + 2, START_US + n) for n in range(pictures)], made)


def expected(slot: Slot, number: int) -> set[int]:
    """The words that follow one, by the rule."""
    x, y, width, height = slot.boxes[number].tolist()
    tall = max(height, 8)
    near = [
        n
        for n in range(slot.count)
        if n != number and slot.first[n] <= slot.last[number] and slot.first[number] <= slot.last[n]
    ]
    place = {n: slot.place(n) for n in near}
    line = [
        n
        for n in near
        if 2 * (min(place[n].bottom, y + height) - max(place[n].y, y))
        >= min(place[n].height, height)
    ]
    right = [n for n in line if x + width - tall // 3 <= place[n].x <= x + width + 2.5 * tall]
    if right:
        nearest = min(place[n].x for n in right)
        return {n for n in right if place[n].x <= nearest + tall // 2}
    start = x
    for n in sorted(line, key=lambda n: -place[n].x):
        if start - 2.5 * tall <= place[n].right <= start + tall // 3:
            start = place[n].x
    below = [
        n
        for n in near
        if y + height // 2 < place[n].y < y + 3 * tall and abs(place[n].x - start) <= 2 * tall
    ]
    nearest = min((place[n].y for n in below), default=0)
    return {n for n in below if place[n].y <= nearest + tall // 2}


@pytest.mark.parametrize("words", [1, 5, 12, 60])
def test_the_rule(words: int) -> None:
    chance = random.Random(words)
    some = 0
    for _ in range(40):
        slot = any_slot(chance, words)
        chosen = chance.sample(range(words), chance.randint(1, words))
        one, two = followers(slot, chosen)
        found = set(zip(one.tolist(), two.tolist(), strict=True))
        assert found == {(n, after) for n in chosen for after in expected(slot, n)}
        among = np.array(chance.sample(range(words), chance.randint(1, words)))
        ones, twos = np.nonzero(may_follow(slot, np.array(chosen), among))
        quick = set(zip(np.array(chosen)[ones].tolist(), among[twos].tolist(), strict=True))
        assert {(n, after) for n, after in found if after in among and n != after} <= quick
        some += len(found)
    assert some or words == 1


def test_no_words() -> None:
    empty = slots.make([(2, START_US)], [])
    assert [len(part) for part in followers(empty, [])] == [0, 0]
    assert sequences(empty) == set()


def test_sequences_in_words_and_between_them() -> None:
    slot = slots.make(
        [(2, START_US)],
        [
            (Word("see", Rectangle(10, 0, 24, 12)), 0, 0, False),
            (Word("/usr/doc", Rectangle(40, 0, 64, 12)), 0, 0, False),
            (Word("now", Rectangle(10, 18, 24, 12)), 0, 0, False),
        ],
    )
    pairs = [("see", "usr"), ("usr", "doc"), ("doc", "now")]
    assert sequences(slot) == {sequence(*pair) for pair in pairs}


def test_the_index_loses_no_phrase_and_saves_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    written = WrittenWords(tmp_path / "store")
    words = [f"w{number}" for number in range(12)]
    for start in range(0, 400, 5):
        lines: list[Line] = [
            (" ".join(chance.choices(words, k=6)), chance.randrange(3), 4, 16 * n) for n in range(4)
        ]
        written.slot(range(start, start + 5), lines)
    queries = [" ".join(chance.choices(words, k=chance.randint(2, 3))) for _ in range(40)]
    hits = saved = 0
    with written.words() as found:
        for query in queries:
            quoted = f'"{query}"'
            fast = found.search(quoted, limit=1000).hits
            terms = parse(quoted)
            few, all_ = (
                len(written.database.matching(expression(terms, ordered=ordered)))
                for ordered in (True, False)
            )
            with monkeypatch.context() as patch:
                patch.setattr(Words, "_shows_all", False)
                assert found.search(quoted, limit=1000).hits == fast
            hits += len(fast)
            saved += all_ - few
            assert few <= all_
    written.close()
    assert hits > 200
    assert saved > 500
