"""The scripts that complete a command line in bash, zsh and fish: click's, with some changes.

- bash ends a word at a colon, and names of screenshots have colons. click gets the line up to the
  cursor instead of bash's words, and a completion without what stands before the last colon.
- Neither bash nor zsh may put a space after a folder of a store.
- bash and zsh get values quoted: click's script for bash expands patterns in names and drops
  backslashes, and zsh would quote a leading tilde.
- A comma in a name is part of it, also in fish.

The variable ``_FSMOUNT_COMPLETE`` selects a script: ``bash_source`` prints it, and it calls the
program with ``bash_complete``.
"""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from fsmount.cli.common.completion import prepare

_ORIGIN = "Written by contrib/dev/completions; do not edit by hand."
_SPECIAL = re.compile(r"([\s\\'\"$`&|;<>()*?\[\]{}#!])")
# bash starts a new word after each of these that is in COMP_WORDBREAKS.
_BREAKS = ":=@"


def _quoted(value: str) -> str:
    """A value with a backslash before each character that means something to a shell."""
    return _SPECIAL.sub(r"\\\1", value)


class _Prepared(ShellComplete):
    """Completion of arguments by their metavars."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return what may take the place of the incomplete word."""
        assert isinstance(self.cli, click.Group)
        prepare(self.cli, args)
        return super().get_completions(args, incomplete)


@add_completion_class
class Bash(_Prepared, BashComplete):
    """Completion in bash 4.4 and later."""

    source_template = (
        f"# Completion of fsmount in bash. {_ORIGIN}\n"
        + """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                if [[ $value == */ ]]; then compopt -o nospace; fi
                ;;
        esac
    done < <(
        COMP_WORDS=${COMP_LINE:0:COMP_POINT} COMP_BREAKS=$COMP_WORDBREAKS \\
            %(complete_var)s=bash_complete "$1" 2>/dev/null
    )
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
    )

    def source(self) -> str:
        """Return the script. Runs no bash to ask for its version, unlike click."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Split the line up to the cursor into complete words and the last one."""
        line = os.environ["COMP_WORDS"]
        # The mark makes the last word end where the line ends, also after a space.
        words = split_arg_string(line + "\0")
        self._word = re.sub(r"^.*(?<!\\)\s", "", line, flags=re.DOTALL)
        return words[1:-1], words[-1].removesuffix("\0")

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line for the script: what takes the place of bash's last word."""
        value = str(item.value)
        # In quotes nothing is special, and no character but a space ends a word.
        if item.type == "plain" and not re.search("['\"]", self._word):
            breaks = [one for one in _BREAKS if one in os.environ.get("COMP_BREAKS", _BREAKS)]
            before = max((self._word.rfind(one) + 1 for one in breaks), default=0)
            value = _quoted(value)[before:]
        return f"{item.type},{value}"


@add_completion_class
class Zsh(_Prepared, ZshComplete):
    """Completion in zsh."""

    source_template = ZshComplete.source_template.replace(
        "compadd -U -V unsorted -a completions",
        "compadd -Q -U -V unsorted -S '' -- ${(M)completions:#*/}\n"
        "        compadd -Q -U -V unsorted -- ${completions:#*/}",
    ).replace(
        "#compdef %(prog_name)s\n",
        f"#compdef %(prog_name)s\n# Completion of fsmount in zsh. {_ORIGIN}\n",
    )

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return the lines for the script."""
        if item.type == "plain" and not item.help:
            item = CompletionItem(_quoted(item.value))
        return super().format_completion(item)


@add_completion_class
class Fish(_Prepared, FishComplete):
    """Completion in fish."""

    source_template = (
        f"# Completion of fsmount in fish. {_ORIGIN}\n"
        + FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')
    )
