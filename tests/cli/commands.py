"""Running commands as processes, and their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The JSON result. Asserts that stdout has one object and no more, and stderr is empty."""
        assert self.err == ""
        assert self.out.count("\n") == 1
        found = json.loads(self.out)
        assert isinstance(found, dict)
        assert found["version"] == 1
        return found

    def sentence(self) -> str:
        """The error message. Asserts that it is one line on stderr, and that stdout is empty."""
        assert self.out == ""
        assert self.err.startswith("fsmount: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("fsmount: ").strip()


Cli = Callable[..., Done]


def process(*arguments: object, **variables: str) -> Done:
    """Run a command as a process of its own."""
    # -P: a checkout in /fsmount is no package for a program that starts in /.
    command = [sys.executable, "-P", "-m", "fsmount", *map(str, arguments)]
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, capture_output=True, timeout=100, check=False, env=environment, cwd="/"
    )
    err = done.stderr.decode(errors="surrogateescape")
    assert "Traceback" not in err, err
    return Done(done.returncode, done.stdout.decode(errors="surrogateescape"), err)
