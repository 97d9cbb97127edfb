"""The options that choose files: --include and --exclude, --since and --until, --changed.

The common order of --include and --exclude matters, which click does not keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fsmount.cli.common.times import Moment, MomentType
from fsmount.store.transfer.patterns import Patterns, Rule
from fsmount.store.transfer.selecting import Criteria, Selection

_RULES = "fsmount.rules"
_CRITERIA = "fsmount.criteria"
Function = TypeVar("Function", bound=Callable[..., object])

FILTER_HELP = """\
--include and --exclude take patterns with the rules of rsync. The first that matches decides, so
the order matters; what none matches is taken. A leading / anchors a pattern at the top, a trailing
/ makes it match folders only; *, **, ? and [..] are wildcards. Nothing in a folder that is left
out is looked at."""
CHANGED_HELP = """\
--changed 5% keeps pictures of which at least 5 % of the screen was new to the store; of equal
pictures only the first is new. It reads a record for each picture that the other options leave."""


class Share(click.ParamType):  # type: ignore[type-arg]
    """A share: 5% or 0.05."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share, 0 to 1; fail if it is malformed or outside of that."""
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not a share; write for example 5% or 0.05", param, ctx)
        return share


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


def selection_options(function: Function) -> Function:
    """Add --since, --until and --changed, beside :func:`filter_options`; see :func:`selected`."""
    for name, kind, text in (
        ("changed", Share(), "Only pictures of which at least this share was new, as 5%."),
        ("until", MomentType(), "Only files taken at that time or before."),
        ("since", MomentType(), "Only files taken at that time or later."),
    ):
        add = click.option(f"--{name}", type=kind, expose_value=False, callback=_note, help=text)
        function = add(function)
    return filter_options(function)


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    """Keep the value of an option for :func:`selected`."""
    context.meta.setdefault(_CRITERIA, {})[option.name] = value


def chosen() -> Patterns:
    """Return the patterns of the running command."""
    return Patterns(click.get_current_context().meta[_RULES])


def selected() -> Selection:
    """Return what the running command selects by :func:`selection_options`.

    A selection by --changed needs a store: :meth:`Selection.of`.
    """
    context = click.get_current_context()
    given = context.meta.get(_CRITERIA, {})
    since, until = given.get("since"), given.get("until")
    criteria = Criteria(
        since.start if isinstance(since, Moment) else None,
        until.end if isinstance(until, Moment) else None,
        given.get("changed"),
    )
    return Selection(context.meta[_RULES], criteria)
