"""The command line of a crash harness: its options, its processes and its report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import TypeVar

from tests.crash.planted import BUGS, collected, plant

T = TypeVar("T")


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all harnesses have."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plant", default="", choices=["", *BUGS])
    return parser


def processes(given: argparse.Namespace, most: int | None = None) -> Pool:
    """New processes with the planted bug: as many as `--jobs` says, or `most` if that is less."""
    count = given.jobs if most is None else min(given.jobs, most)
    return get_context("spawn").Pool(count, initializer=plant, initargs=(given.plant,))


def run_cases(
    doc: str | None,
    count: Callable[[int, int], int],
    cases_of: Callable[[int], list[T]],
    some: Callable[[tuple[int, int, list[T]]], list[str]],
) -> tuple[int, int, list[str]]:
    """Run the cases that `cases_of` makes for each point that `count` counts in one script.

    Returns the number of points, the number of cases, and the failure texts. `some` runs a share of
    the cases.
    """
    parser = options(doc)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=80)
    parser.add_argument("--every", type=int, default=1, help="every n-th case only")
    given = parser.parse_args()
    with processes(given) as pool:
        points = pool.apply(count, (given.seed, given.operations))
        cases = cases_of(points)[:: given.every]
        shares = [cases[i :: given.jobs * 8] for i in range(given.jobs * 8)]
        work = [(given.seed, given.operations, share) for share in shares]
        return points, len(cases), collected(pool.imap(some, work), given.plant)


def report(summary: str, wrong: list[str]) -> int:
    """Print the first failures and a summary. Returns the exit status."""
    for line in wrong[:20]:
        print(line)
    print(f"{summary}, {len(wrong)} failed")
    return 1 if wrong else 0
