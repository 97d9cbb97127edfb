"""The patterns of --include and --exclude: a table, and the choice that rsync makes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fsmount.store.transfer.patterns import ALL, Patterns, Rule
from fsmount.store.transfer.tree import Summary, walk

# Pattern, paths that it matches, paths that it does not. A slash at the end marks a folder.
TABLE = [
    ("foo", "foo a/foo foo/ a/foo/", "foox xfoo a/foo/x foo/x"),
    ("foo/", "foo/ a/foo/", "foo a/foo"),
    ("/foo", "foo foo/", "a/foo"),
    ("/foo/", "foo/", "foo a/foo/"),
    ("a/foo", "a/foo b/a/foo", "foo xa/foo a/b/foo"),
    ("/a/foo", "a/foo", "b/a/foo"),
    ("*.png", "x.png a/b.png .png *.png", "x.PNG x.png.bak png"),
    ("/*.png", "x.png", "a/x.png"),
    ("a/*.png", "a/x.png b/a/x.png", "x.png a/b/x.png"),
    ("/a/*", "a/x a/x/", "a/ a a/x/y b/a/x"),
    ("*", "a a/b a/", ""),
    ("*/", "a/ a/b/", "a a/b"),
    ("?.png", "x.png a/y.png", ".png xx.png"),
    ("a?b", "a.b axb", "a/b"),
    ("a*b", "ab axxb", "a/b"),
    ("**.png", "x.png a/x.png", "x.jpg"),
    ("/a/**", "a/x a/b/c a/x/", "a/ a b/a/x"),
    ("/a/***", "a/ a/x a/b/c", "a b/a/x ab/"),
    ("a/***", "a/ b/a/ a/x b/a/x/y", "a b"),
    ("a/**", "a/x b/a/x a/b/c", "a/ ba/x"),
    ("a**z", "az a/z a/b/c/z xy/a/z", "ba/z"),
    ("**/foo", "foo a/foo a/b/foo", "xfoo foo/x"),
    ("/**/foo", "a/foo a/b/foo", "foo"),
    ("a/**/z", "a/b/z x/a/b/c/z", "a/z"),
    ("[abc].png", "a.png x/b.png", "d.png ab.png"),
    ("[!a-c].png", "d.png -.png", "a.png"),
    ("[^a-c].png", "d.png", "b.png"),
    ("[]x].png", "].png x.png", "a.png"),
    ("[a-].png", "a.png -.png", "b.png"),
    ("[[:digit:]]*", "0 12", "a a1"),
    ("a[!x]b", "ayb", "a/b axb"),
    ("[z-a]x", "", "zx ax mx"),
    (r"a\*b*", "a*b a*bc", "axb"),
    (r"a\b", r"a\b", "ab"),
    (r"[\]]x", "]x", r"\x"),
    ("[a", "", "[a a"),
    ("[[:nope:]]", "", "n :"),
    ("caf\udce9*", "caf\udce9.txt", "cafe.txt"),
    ("2024-06-0[67]T*", "2024-06-06T17:41:00+00:00.png desk/2024-06-07T00.png", "2024-06-08T1.png"),
]


@pytest.mark.parametrize(("pattern", "matched", "others"), TABLE)
def test_one_pattern(pattern: str, matched: str, others: str) -> None:
    excluded = Patterns([Rule(False, pattern)])
    for paths, chosen in ((matched, False), (others, True)):
        for path in paths.split():
            name = os.fsencode(path.removesuffix("/"))
            assert excluded.chooses(name, folder=path.endswith("/")) is chosen, path


def test_the_first_match_counts() -> None:
    rules = Patterns([Rule(True, "*.png"), Rule(False, "a*"), Rule(True, "*.txt")])
    for path, chosen in ((b"a.png", True), (b"a.txt", False), (b"b.txt", True), (b"b", True)):
        assert rules.chooses(path, folder=False) is chosen


def test_the_top_is_always_chosen() -> None:
    assert Patterns([Rule(False, "*")]).chooses(b"", folder=True)
    assert not ALL
    assert ALL.chooses(b"anything", folder=False)


NAMES = [
    "a",
    "b",
    "foo",
    "x.png",
    "y.png",
    "x.PNG",
    "ab",
    "a*b",
    "].png",
    "-",
    "a b",
    "é",
    "\udce9",
]
PATTERNS = [
    *(pattern for pattern, _, _ in TABLE),
    *("a", "b/", "/a", "a/b", "/a/b", "*", "*/", "/*", "**", "***", "/**", "/***", "a/*/b", "b**"),
    *("**/", "**/a", "**a", "a**b", "/a**", "a/**/", "*/a", "/*/a", "foo/**/x.png", "*.p?g", "??"),
    *("[a-b]", "[!a]*", "[^x]*.png", "/foo/*.png", "**/foo/***", "foo/***", "*b*", "é", "[é]", "?"),
    *("\udce9", "a\\ b", "a\\*b", "a\\*b*", "[*]", "a[*]b", "/", "//", "a//b", "[a-b]/[!a]*"),
]


def make(root: Path, chance: random.Random, depth: int = 0) -> None:
    root.mkdir()
    for name in chance.sample(NAMES, 5):
        if depth < 3 and chance.random() < 0.5:
            make(root / name, chance, depth + 1)
        else:
            (root / name).touch()


def by_rsync(options: Sequence[str], sources: Sequence[str], folder: Path) -> set[bytes]:
    """The paths that rsync would copy, those of folders with a slash."""
    command = ["rsync", "-r", "-n", "-8", "--out-format=%n", *options, "--", *sources, "./none/"]
    done = subprocess.run(
        list(map(os.fsencode, command)), cwd=folder, capture_output=True, check=True
    )
    return set(done.stdout.splitlines()) - {b"./", b"created directory ./none"}


def by_us(rules: Sequence[Rule], sources: Sequence[str], folder: Path) -> set[bytes]:
    chosen = Patterns(rules)
    found = set()
    for source in sources:
        target = b"" if source.endswith("/") else os.fsencode(source)
        for item in walk(folder / source, target, Summary(), chosen):
            if item.target:
                found.add(item.target + (b"/" if item.source.is_dir() else b""))
    return found


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_rsync_chooses_the_same(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for name in ("foo", "b"):
        make(tmp_path / name, chance)
    cases = [[Rule(False, pattern)] for pattern in PATTERNS]
    cases += [[Rule(True, pattern), Rule(False, "*")] for pattern in PATTERNS]
    for _ in range(40):
        some = chance.sample(PATTERNS, chance.randint(2, 4))
        cases.append([Rule(chance.random() < 0.5, pattern) for pattern in some])
    for rules in chance.sample(cases, 80):
        sources = chance.choice([["foo/"], ["foo", "b"]])
        options = [f"--{'include' if one.include else 'exclude'}={one.pattern!s}" for one in rules]
        theirs = by_rsync(options, sources, tmp_path)
        assert by_us(rules, sources, tmp_path) == theirs, (options, sources)
