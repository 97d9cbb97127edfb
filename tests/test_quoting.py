"""Names with control characters are quoted, so that a shell reads the same name back."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from fsmount.quoting import escaped, quoted

QUOTED = {
    "evil\x1b]0;title\x07\x1b[2J.txt": "'evil'$'\\033'']0;title'$'\\a\\033''[2J.txt'",
    "two\nlines": "'two'$'\\n''lines'",
    "\x1b": "''$'\\033'",
    "\t\r\v\f\b": "''$'\\t\\r\\v\\f\\b'",
    "it's\n": "'it'\\''s'$'\\n'",
    "'": None,
    "'a'$'\\n'": None,
    "\x1b1": None,
    "del\x7f": "'del'$'\\177'",
    "csi\x9b2J": "'csi'$'\\302\\233''2J'",
    "abc\u202egnp.exe": "'abc'$'\\342\\200\\256''gnp.exe'",
    "line\u2028para\u2029": None,
    "\u2066isolate\u2069": None,
    "\ufeffmark\u200b": None,
    "tag\U000e0001": None,
    "caf\udce9.txt": "'caf'$'\\351''.txt'",
    "\udcff\udcfe": "''$'\\377\\376'",
}
PLAIN = [
    "",
    "00.png",
    "two words",
    "it's",
    "[red]text[/red]",
    "a \\033 b",
    "$'\\n'",
    "grün.png",
    "スクリーンショット　1.png",
    "Screenshot 2024-06-06 at 5.00.00\u202fPM.png",
    "a\u00a0b",
    "\U0001f468\u200d\U0001f469.png",
    "\u0645\u06cc\u200c\u062e.png",
    "e\u0301",
]


@pytest.mark.parametrize("name", QUOTED, ids=ascii)
def test_unsafe_names_are_quoted(name: str) -> None:
    found = quoted(name)
    wanted = QUOTED[name]
    if wanted is not None:
        assert found == wanted
    assert found.startswith("'")
    assert escaped(found) == found
    assert all(character.isprintable() for character in found)


@pytest.mark.parametrize("name", PLAIN, ids=ascii)
def test_other_names_are_not(name: str) -> None:
    assert quoted(name) == escaped(name) == name


def test_no_two_names_look_the_same() -> None:
    looks = [quoted(name) for name in (*QUOTED, *PLAIN)]
    looks += [quoted(look) for look in looks if look.startswith("'")]
    assert len(set(looks)) == len(looks)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("name", [*QUOTED], ids=ascii)
def test_the_shell_reads_them_back(name: str) -> None:
    command = ["bash", "-c", f"printf %s {quoted(name)}"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == os.fsencode(name)


def test_a_line_stays_one_line() -> None:
    assert escaped("a\nb\r\x1b[2Jc\udcff\u2028") == r"a\nb\r\033[2Jc\377\342\200\250"


def test_what_can_be_no_name_is_escaped_too() -> None:
    assert quoted("\ud800") == "''$'\\355\\240\\200'"
