"""Search in words that were written by hand."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.errors import NoText, TextDamaged, UsageError
from fsmount.store.index import ROOT
from fsmount.store.retention.trash import Name
from fsmount.store.store import open_read_store
from fsmount.text.database import Series, path_of
from fsmount.text.exclusions import Exclusions, Hours
from fsmount.text.results import Found, Rectangle
from fsmount.text.words import open_words
from tests.support.written_words import MINUTE_US, START_US, Line, WrittenWords


@pytest.fixture
def written(tmp_path: Path) -> Iterator[WrittenWords]:
    made = WrittenWords(tmp_path / "store")
    yield made
    made.close()


def search(written: WrittenWords, query: str, **more: object) -> Found:
    with written.words() as words:
        return words.search(query, **more)  # type: ignore[arg-type]


def minutes(found: Found) -> list[tuple[int, int]]:
    """The first and last minute of each hit."""
    return [
        ((hit.first.at_us - START_US) // MINUTE_US, (hit.last.at_us - START_US) // MINUTE_US)
        for hit in found.hits
    ]


def test_a_stretch_is_one_hit(written: WrittenWords) -> None:
    written.slot(range(10), [("the annual budget", 2, 5), ("other things", 0, 9)])
    (hit,) = search(written, "Budget").hits
    assert minutes(search(written, "Budget")) == [(2, 5)]
    assert (hit.pictures, hit.seconds) == (4, 180.0)
    assert hit.first.path == b"desk/000002.png"
    assert hit.last.path == b"desk/000005.png"
    assert hit.snippet == "the annual budget"
    assert hit.places == (Rectangle(10 + 24 + 6 + 48 + 6, 0, 48, 12),)


def test_a_word_that_comes_back_is_two_hits_and_the_newest_comes_first(
    written: WrittenWords,
) -> None:
    written.slot(range(10), [("budget", 0, 1), ("budget", 5, 6)])
    assert minutes(search(written, "budget")) == [(5, 6), (0, 1)]


def test_a_word_that_moves_stays_one_hit(written: WrittenWords) -> None:
    written.slot(range(10), [("budget", 0, 3, 100), ("budget", 4, 7, 60)])
    (hit,) = search(written, "budget").hits
    assert (hit.pictures, hit.places[0].y) == (8, 60)


def test_a_stretch_goes_through_slots(written: WrittenWords) -> None:
    first = written.slot(range(5), [("budget plan", 3, 4, 0, True)])
    middle = written.slot(range(5, 10), [("budget plan", 0, 4, 0, True)], previous=first)
    written.slot(range(10, 15), [("budget plan", 0, 1, 0), ("other", 0, 4)], previous=middle)
    assert minutes(search(written, "budget plan")) == [(3, 11)]
    assert search(written, "budget").hits[0].pictures == 9


def test_a_stretch_goes_through_many_slots(written: WrittenWords) -> None:
    number = written.slot(range(5), [("budget plan", 2, 4, 0, True), ("plan", 0, 4, 40, True)])
    for start in range(5, 50, 5):
        lines: list[Line] = [("budget plan", 0, 4, 0, True), (f"other{start}", 0, 4, 40)]
        number = written.slot(range(start, start + 5), lines, previous=number)
    written.slot(range(50, 55), [("budget plan", 0, 1, 0), ("end", 0, 4)], previous=number)
    for query, first in (("budget", 2), ("bud*", 2), ("plan", 0), ('"budget plan"', 2)):
        (hit,) = search(written, query).hits
        assert minutes(search(written, query)) == [(first, 51)], query
        assert hit.pictures == 52 - first


def test_a_slot_that_is_still_open_is_searched_too(written: WrittenWords) -> None:
    first = written.slot(range(5), [("budget", 3, 4, 0, True)])
    written.slot(range(5, 8), [("budget", 0, 2)], previous=first, indexed=False)
    assert minutes(search(written, "budget")) == [(3, 7)]


def test_all_words_must_be_visible_at_the_same_time(written: WrittenWords) -> None:
    written.slot(range(10), [("alpha", 0, 5), ("beta", 3, 9), ("gamma", 8, 9)])
    assert minutes(search(written, "alpha beta")) == [(3, 5)]
    assert not search(written, "alpha gamma").hits


def test_phrases(written: WrittenWords) -> None:
    written.slot(range(3), [("one two three", 0, 2), ("three two one", 0, 0, 300)])
    assert minutes(search(written, '"two three"')) == [(0, 2)]
    assert minutes(search(written, '"three two"')) == [(0, 0)]
    assert minutes(search(written, '"two one"')) == [(0, 0)]
    assert not search(written, '"one three"').hits


def test_a_phrase_goes_on_in_the_next_line(written: WrittenWords) -> None:
    written.slot(range(1), [("a long line that", 0, 0, 100), ("goes on here", 0, 0, 120)])
    assert search(written, '"that goes on"').hits


def test_signs_in_words(written: WrittenWords) -> None:
    written.slot(range(1), [("see /usr/share/doc and 6.2.1", 0, 0)])
    for query in ("6.2.1", "/usr/share", '"usr share doc"', "SHARE"):
        assert search(written, query).hits, query
    assert not search(written, "6.1.2").hits


def test_prefixes_and_parts(written: WrittenWords) -> None:
    written.slot(range(1), [("fsmount-backup reconfiguration", 0, 0)])
    assert search(written, "recon*").hits
    assert search(written, "*figura").hits
    assert search(written, "*config*").hits
    assert not search(written, "zzz*").hits


def test_a_part_of_a_word_is_found_and_told(written: WrittenWords) -> None:
    written.slot(range(1), [("reconfiguration", 0, 0)])
    found = search(written, "figur")
    assert found.hits
    assert found.instead == ("reconfiguration",)


@pytest.mark.parametrize("query", ["budgat", "budgt", "buddget", "bugdet"])
def test_one_wrong_letter(written: WrittenWords, query: str) -> None:
    written.slot(range(2), [("budget", 0, 0), ("unrelated", 0, 1)])
    found = search(written, query)
    assert minutes(found) == [(0, 0)]
    assert found.instead == ("budget",)


def test_a_phrase_with_a_misread_word(written: WrittenWords) -> None:
    written.slot(range(3), [("hello wor1d", 0, 0), ("world", 2, 2)])
    found = search(written, '"hello world"')
    assert minutes(found) == [(0, 0)]
    assert "wor1d" in found.instead


def test_what_is_there_is_not_replaced(written: WrittenWords) -> None:
    written.slot(range(2), [("budget", 0, 0), ("budges", 1, 1)])
    assert search(written, "budget").instead == ()
    assert len(search(written, "budget").hits) == 1


def test_languages_without_spaces(written: WrittenWords) -> None:
    written.slot(range(2), [("私は日本語を読む", 0, 0), ("ภาษาไทย", 1, 1), ("Grüße Straße", 0, 1)])
    for query in ("日本語", "日本", "語", "読む", "本語を"):
        assert minutes(search(written, query)) == [(0, 0)], query
    assert minutes(search(written, "ไทย")) == [(1, 1)]
    assert not search(written, "語日").hits
    assert search(written, "grusse").hits or search(written, "grüsse").hits
    assert search(written, "STRASSE").hits


def test_times(written: WrittenWords) -> None:
    written.slot(range(10), [("budget", 0, 2), ("budget", 5, 7)])
    at = [START_US + minute * MINUTE_US for minute in range(10)]
    assert minutes(search(written, "budget", since_us=at[3])) == [(5, 7)]
    assert minutes(search(written, "budget", since_us=at[6])) == [(5, 7)]
    assert minutes(search(written, "budget", until_us=at[4])) == [(0, 2)]
    assert minutes(search(written, "budget", since_us=at[3], until_us=at[4])) == []


def test_a_limit(written: WrittenWords) -> None:
    for start in range(0, 40, 10):
        written.slot(range(start, start + 3), [("budget", 0, 0), ("budget", 2, 2)])
    found = search(written, "budget", limit=3)
    assert minutes(found) == [(32, 32), (30, 30), (22, 22)]
    assert found.more
    assert not search(written, "budget", limit=100).more


def test_folders(written: WrittenWords) -> None:
    written.slot(range(2), [("budget", 0, 1)])
    other = written.index.create(
        ROOT, b"desktop", mode=stat.S_IFDIR | 0o755, uid=0, gid=0, now_ns=1
    )
    written.folder = other.ino
    screen = written.database.series_id(Series(b"desktop", 1600, 900))
    written.slot(range(100, 102), [("budget", 0, 1)], screen=screen)
    assert minutes(search(written, "budget", under=b"desk")) == [(0, 1)]
    assert minutes(search(written, "budget", under=b"desktop/")) == [(100, 101)]
    assert minutes(search(written, "budget", under=b"desktop/000101.png")) == [(101, 101)]


def test_what_the_store_does_not_show_is_not_found(written: WrittenWords) -> None:
    number = written.slot(range(4), [("budget", 0, 2)])
    inos = written.inos(number)
    names = [(written.folder, b"%06d.png" % minute) for minute in range(4)]
    written.index.unlink(*names[2], 5)
    (hit,) = search(written, "budget").hits
    assert hit.last.path == b"desk/000001.png"
    trashed = Name(*names[0], b"desk/000000.png", inos[0])
    written.index.put_in_trash([trashed[:3]], 5)
    assert minutes(search(written, "budget")) == [(1, 1)]
    with written.index.transaction():
        written.index._run("UPDATE inodes SET object = 999 WHERE ino = ?", (inos[1],))
    assert not search(written, "budget").hits


def test_the_words_of_a_picture(written: WrittenWords) -> None:
    number = written.slot(range(3), [("second line", 0, 2, 50), ("first line", 1, 1, 20)])
    inos = written.inos(number)
    with written.words() as words:
        assert [word.text for word in words.of_picture(inos[1])] == [
            "first",
            "line",
            "second",
            "line",
        ]
        assert words.text(inos[1]) == "first line\nsecond line\n"
        assert words.text(inos[0]) == "second line\n"
        assert words.is_read(inos[0])
        assert words.of_picture(10**9) == []


def test_a_running_search_sees_new_words(written: WrittenWords) -> None:
    written.slot(range(2), [("old", 0, 1)])
    with written.words() as words:
        assert not words.search("budget").hits
        written.slot(range(5, 7), [("budget", 0, 1)])
        assert words.search("budget").hits


def test_removed_words_are_gone_from_the_file(written: WrittenWords) -> None:
    number = written.slot(range(4), [("confidential", 1, 2), ("harmless", 0, 3)])
    keep = written.slot(range(10, 12), [("harmless", 0, 1)])
    inos = written.inos(number)
    database = written.database
    assert b"confidential" in path_of(written.layout).with_suffix(".sqlite-wal").read_bytes()
    with database.transaction():
        database.replace_slots({number: database.slot(number).without(inos[1:3])})
        database.forget_pictures(inos[1:3])
    database.wipe()
    assert not search(written, "confidential").hits
    assert minutes(search(written, "harmless")) == [(10, 11), (0, 3)]
    for suffix in ("", "-wal"):
        data = (written.root / f"text.sqlite{suffix}").read_bytes()
        for part in (b"confidential", b"onfidentia", b"fident"):
            assert part not in data
    with database.transaction():
        database.replace_slots({keep: database.slot(keep).without(written.inos(keep))})
    assert keep not in database.slot_numbers()


def test_excluded_words_are_not_shown(written: WrittenWords) -> None:
    number = written.slot(range(3), [("panel secret", 0, 2, 0), ("main text", 0, 2, 100)])
    with written.words() as words:
        assert words.search("panel").hits
        Exclusions(areas=(Rectangle(0, 0, 2000, 20),)).write(written.layout)
        assert not words.search("panel").hits
        assert words.text(written.inos(number)[0]) == "main text\n"
        Exclusions(redacted=("^main$",)).write(written.layout)
        assert not words.search("main").hits
        assert words.search("text").hits[0].snippet == "text"


def test_redacted_parts_of_lines(written: WrittenWords) -> None:
    number = written.slot(range(1), [("card 4111 1111 1111 1111 end", 0, 0), ("fine", 0, 0)])
    Exclusions(redacted=(r"\d{4} \d{4} \d{4} \d{4}",)).write(written.layout)
    with written.words() as words:
        assert words.search("card").hits[0].snippet == "card … end"
        assert words.text(written.inos(number)[0]) == "fine\n"


def test_excluded_hours(written: WrittenWords, monkeypatch: pytest.MonkeyPatch) -> None:
    written.slot(range(3), [("budget", 0, 2)])
    assert search(written, "budget").hits
    Exclusions(hours=(Hours(0, 12 * 60), Hours(12 * 60, 24 * 60))).write(written.layout)
    assert not search(written, "budget").hits


@pytest.mark.parametrize("query", ["", "  ", "- /", '"', '""', "*", "'; --"])
def test_a_query_without_letters(written: WrittenWords, query: str) -> None:
    with pytest.raises(UsageError):
        search(written, query)


@pytest.mark.parametrize("query", ['a"b', "NEAR(a b)", "a AND", "ended:x", "'; drop --", "x\0y"])
def test_any_query_is_words_and_no_command(written: WrittenWords, query: str) -> None:
    written.slot(range(1), [("budget", 0, 0)])
    search(written, query)


def test_no_words(tmp_path: Path, root: Path) -> None:
    with open_read_store(root) as store, pytest.raises(NoText), open_words(store):
        pass


def test_damage_is_told(written: WrittenWords) -> None:
    written.slot(range(5), [("budget plan", 0, 4)])
    written.database.empty_log()
    path = path_of(written.layout)
    data = bytearray(path.read_bytes())
    data[8192 : len(data)] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(TextDamaged, match=r"fsmount text makes it again"):
        search(written, "budget")


def test_words_of_another_store_are_not_searched(written: WrittenWords) -> None:
    written.database.set_fact("store", "another")
    with written.opened() as store, pytest.raises(NoText), open_words(store):
        pass
