"""The options that say what a prune keeps, and the question before something is removed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fsmount.cli.common.options import Size
from fsmount.errors import UsageError
from fsmount.store.retention.amounts import Amount, parse_amount
from fsmount.store.retention.rules import PERIODS, Rules

Function = TypeVar("Function", bound=Callable[..., object])

RULES_HELP = """\
The keep rules say what must stay; a picture stays if one of them keeps it. What else goes: without
--drop-idle and --budget everything else; with --drop-idle, of the rest, the pictures inside of idle
runs (their first and last stay); with --budget, of the rest, the oldest pictures, only as many as
have to go. Without any rule everything stays.

AMOUNT is a number, an interval (36h, 30d, 2w, 6m, 1y6m), or forever. The words are those of restic
and borg 2. --keep-daily 7 keeps one picture of each of the newest seven days that have pictures;
--keep-daily 7d one of each day that the seven days up to the newest picture touch. A rule that
reaches beyond the oldest picture keeps that one, too. Days and hours are those of the local clock,
weeks begin on Monday. Of each hour, day, week, month or year the picture stays that brought the
most new content; of equal ones the newest."""


class AmountType(click.ParamType):  # type: ignore[type-arg]
    """An amount of a keep rule."""

    name = "amount"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Amount:
        """Return the amount; fail if the text is none."""
        if isinstance(value, Amount):
            return value
        try:
            return parse_amount(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def rule_options(function: Function) -> Function:
    """Add the options of :class:`Rules`; :func:`rules_of` makes the rules of their values."""
    add = click.option(
        "--budget",
        type=Size(),
        help="Drop the oldest pictures that no rule keeps, until the store takes at most this.",
    )
    function = add(function)
    add = click.option("--drop-idle", is_flag=True, help="Drop pictures inside of idle runs.")
    function = add(function)
    for name in reversed(PERIODS):
        period = {"daily": "day"}.get(name, name.removesuffix("ly"))
        function = _keep(name, f"Keep one picture of each {period}.")(function)
    function = _keep("last", "Keep the newest pictures.")(function)
    return _keep("within", "Keep all pictures of an interval.")(function)


def _keep(name: str, text: str) -> Callable[[Function], Function]:
    return click.option(f"--keep-{name}", type=AmountType(), metavar="AMOUNT", help=text)


def rules_of(options: dict[str, Any]) -> Rules:
    """Return the rules that the options of :func:`rule_options` say; takes them out of `options`.

    Raises UsageError if --keep-within has a number.
    """
    keeping = {name: options.pop(f"keep_{name}") for name in ("last", "within", *PERIODS)}
    within = keeping["within"]
    if within is not None and not within.is_interval:
        raise UsageError("--keep-within needs an interval, such as 30d; --keep-last takes a number")
    return Rules(**keeping, drop_idle=options.pop("drop_idle"), budget=options.pop("budget"))


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal, unless `yes`.

    Raises UsageError if there is no terminal, and click.Abort if the answer is no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nobody can be asked here; --yes goes on without a question")
    click.confirm(question, abort=True, err=True)
