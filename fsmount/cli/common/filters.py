"""The options --include and --exclude, whose common order matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from fsmount.store.transfer.patterns import Patterns, Rule

_RULES = "fsmount.rules"
Function = TypeVar("Function", bound=Callable[..., object])

FILTER_HELP = """\
--include and --exclude take patterns with the rules of rsync. The first that matches decides, so
the order matters; what none matches is taken. A leading / anchors a pattern at the top, a trailing
/ makes it match folders only; *, **, ? and [..] are wildcards. Nothing in a folder that is left
out is looked at."""


class FilteredCommand(click.Command):
    """A command with :func:`filter_options`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and note the rules in the order in which they were given."""
        # click itself gives the values of each option apart.
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given = {name: iter(values.get(name) or ()) for name in ("include", "exclude")}
        ctx.meta[_RULES] = [
            Rule(option.name == "include", next(given[option.name]))
            for option in order
            if option.name in given
        ]
        return super().parse_args(ctx, args)


def filter_options(function: Function) -> Function:
    """Add --include and --exclude to a :class:`FilteredCommand`; see :func:`chosen`."""
    for name, text in (("exclude", "Leave out what matches."), ("include", "Take what matches.")):
        add = click.option(
            f"--{name}", multiple=True, expose_value=False, metavar="PATTERN", help=text
        )
        function = add(function)
    return function


def chosen() -> Patterns:
    """Return the patterns of the running command."""
    return Patterns(click.get_current_context().meta[_RULES])
