"""A year of pictures, pruned to a policy: CPU seconds and memory.

    python -m tests.bench.retention [--files 525600] [--json]

The stores are synthetic (:mod:`tests.bench.synthetic`), a picture each minute. In the first each
picture is an object of its own with 22 references, so the plan has to look at 11 million of them;
its pictures cannot be read, so it is planned and moved to the trash, and no further. In the second
all pictures share one that is really coded; it is pruned, and the trash is emptied.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fsmount.store.retention.amounts import Amount, parse_amount
from fsmount.store.retention.rules import Rules
from fsmount.store.store import open_read_store
from fsmount.store.transfer.policing import plan_policy
from tests.bench import synthetic
from tests.bench.measure import spend, tell

FILES = 525_600
_RULES = Rules(
    within=parse_amount("30d"), hourly=parse_amount("3m"), daily=Amount(), drop_idle=False
)
_OPTIONS = ("--keep-within", "30d", "--keep-hourly", "3m", "--keep-daily", "forever")


def planned(store: Path, rules: Rules) -> None:
    """Plan a prune, as `prune` does before it changes anything."""
    with open_read_store(store) as opened:
        plan_policy(opened, rules)


def command(arguments: Sequence[str | Path]) -> None:
    """Run a command of fsmount to its end."""
    subprocess.run(
        [sys.executable, "-m", "fsmount", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def figures(files: int) -> dict[str, float]:
    """Make the stores and measure."""
    found: dict[str, float] = {"files": files}
    with tempfile.TemporaryDirectory() as folder:
        own, shared = Path(folder) / "own", Path(folder) / "shared"
        # One folder, and so one series.
        synthetic.fill(own, files, files)
        synthetic.fill(shared, files, files, shared=True)
        budget = Rules(within=parse_amount("30d"), budget=1 << 20)
        for name, work in (
            ("plan", partial(planned, own, _RULES)),
            ("plan_budget", partial(planned, own, budget)),
            ("prune", partial(command, ("prune", "-y", *_OPTIONS, own))),
            ("prune_shared", partial(command, ("prune", "-y", *_OPTIONS, shared))),
            ("empty_shared", partial(command, ("trash", "empty", "-y", shared))),
        ):
            cost = spend(work)
            if name.startswith("prune"):
                with open_read_store(own if name == "prune" else shared) as opened:
                    found[f"{name}_left"] = opened.stats()["files"]
            found |= {
                f"{name}_cpu_s": cost.cpu_s,
                f"{name}_wall_s": cost.wall_s,
                f"{name}_peak_bytes": cost.peak_bytes,
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    tell(figures(chosen.files), as_json=chosen.json)


if __name__ == "__main__":
    main()
