"""Runs the tests that failed in the latest run again, each alone, and tells whether they fail then.

Of thousands of tests on busy processors now and then one fails that passes the next time. It is
*unsteady*: it, or what it tests, depends on how fast things happen. That is a defect. But it says
little about the change that the run was for, and it must not hold that up. So CI ends well if at
most three tests failed and each of them then passes several times. It names them at the end, and
their reports stand above. Whoever sees one mends it next.

``python -m tests.support.unsteady``, in the folder where pytest ran. The status is 0 if all failed
tests are unsteady.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

_MOST = 3
_TIMES = 10
# A test that takes long runs less often, but at least so many times.
_AT_LEAST = 2
_LIMIT_S = 60.0


def failed(cache: Path) -> list[str]:
    """Names of the tests that failed in the latest run, by pytest's `cache` folder."""
    try:
        found = json.loads((cache / "v/cache/lastfailed").read_text())
    except FileNotFoundError:
        return []
    return sorted(found)


def is_unsteady(test: str) -> bool:
    """Run a test several times. Returns whether it passes each time, and prints what it did."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", test]
    for times in range(_TIMES):
        if times >= _AT_LEAST and time.monotonic() - start > _LIMIT_S:
            break
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, f"{test}: failed again, alone", sep="\n")
            return False
        print(f"{test}: passed alone ({times + 1})", flush=True)
    return True


def main() -> int:
    """Run the command that the module describes."""
    tests = failed(Path(".pytest_cache"))
    if not 0 < len(tests) <= _MOST:
        print(f"{len(tests)} tests failed; they are not run again")
        return 1
    if not all(map(is_unsteady, tests)):
        return 1
    print("\nUNSTEADY, to be mended next (the reports stand above):", *tests, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
