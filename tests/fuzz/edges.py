"""Thousands of edge cases of deflate: compares the kernel with classic zlib and golden vectors.

    python -m tests.fuzz.edges [CASES [SEED]] [COMMAND...]

COMMAND runs a kernel behind a pipe (`pipe.c`), for example one for another machine under an
emulator. Without COMMAND the program tests the extension of this Python.

A case is an input with one set of parameters. The kernel compresses the input in full and from a
reference. In some cases it also compresses on several threads, searches the parameters of the
stream, or makes the correction record of the stream and applies it. The record must be the same on
every machine. The program ends with status 1 at the first difference.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from fsmount.codec import _kernel
from fsmount.codec.deflate import engine
from tests.support.deflate_inputs import (
    GOLDEN_PARAMS,
    Params,
    edge_inputs,
    edited,
    golden_inputs,
    grid,
    grid_input,
    oracle,
    stored,
    texture,
)
from tests.support.paths import DATA

GOLDEN = DATA / "kernel_golden.json"
RECORDS = DATA / "corrections_golden.json"

ALL_PARAMS = tuple(
    (level, strategy, mem_level, window_bits)
    for level in range(10)
    for strategy in range(5)
    for mem_level in range(1, 10)
    for window_bits in (*range(8, 15), *[15] * 7)  # every second one is 15, as in libpng
)


class Kernel(Protocol):
    """The interface of a tested kernel."""

    def deflate(self, raw: bytes, params: Params, threads: int = 1, row_bytes: int = 0) -> bytes:
        """Compress `raw`; returns its stream."""

    def delta(self, reference: bytes, raw: bytes, params: Params, threads: int = 1) -> bytes:
        """Compress `raw` with the help of the stream of `reference`; returns its own stream."""

    def identify(self, body: bytes, raw: bytes) -> Sequence[Params]:
        """The parameters that may have made the stream `body` of `raw`."""

    def record(self, body: bytes, raw: bytes) -> bytes:
        """The correction record of `body`; empty if there is none."""

    def apply(self, record: bytes, raw: bytes) -> bytes:
        """The stream of `raw` from which `record` was made."""


class Native:
    """The kernel in the extension of this Python."""

    def deflate(self, raw: bytes, params: Params, threads: int = 1, row_bytes: int = 0) -> bytes:
        return _kernel.deflate(raw, *params, threads, row_bytes)[0]

    def delta(self, reference: bytes, raw: bytes, params: Params, threads: int = 1) -> bytes:
        body, tokens = _kernel.deflate(reference, *params)
        return _kernel.deflate_delta(
            reference, tokens, raw, *params, threads, 0, body if len(raw) % 2 else None
        )[0]

    def identify(self, body: bytes, raw: bytes) -> Sequence[Params]:
        return _kernel.identify(body, raw)

    def record(self, body: bytes, raw: bytes) -> bytes:
        made = _kernel.correct(body, raw)
        return made[0] if made else b""

    def apply(self, record: bytes, raw: bytes) -> bytes:
        return _kernel.apply(record, raw)


class Piped:
    """A kernel in another program, built from `pipe.c`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def deflate(self, raw: bytes, params: Params, threads: int = 1, row_bytes: int = 0) -> bytes:
        return self._ask(0, params, threads, row_bytes, b"", raw)

    def delta(self, reference: bytes, raw: bytes, params: Params, threads: int = 1) -> bytes:
        return self._ask(1, params, threads, 0, reference, raw)

    def identify(self, body: bytes, raw: bytes) -> Sequence[Params]:
        return list(struct.iter_unpack("4B", self._ask(2, (0, 0, 1, 9), 1, 0, body, raw)))

    def record(self, body: bytes, raw: bytes) -> bytes:
        return self._ask(3, (0, 0, 1, 9), 1, 0, body, raw)

    def apply(self, record: bytes, raw: bytes) -> bytes:
        return self._ask(4, (0, 0, 1, 9), 1, 0, record, raw)

    def close(self) -> None:
        """End the program."""
        self._process.communicate()

    def _ask(
        self, what: int, params: Params, threads: int, row_bytes: int, one: bytes, two: bytes
    ) -> bytes:
        pipe = self._process
        assert pipe.stdin is not None and pipe.stdout is not None
        head = struct.pack("<9I", what, *params, threads, row_bytes, len(one), len(two))
        pipe.stdin.write(head + one + two)
        pipe.stdin.flush()
        (size,) = struct.unpack("<I", pipe.stdout.read(4))
        return pipe.stdout.read(size)


def golden_differences(kernel: Kernel) -> list[str]:
    """The names of the golden vectors that the kernel does not give.

    `kernel_golden.json` has the first 32 digits of SHA-256 hashes. For every input and set of
    parameters it has the hash of the stream, made by zlib 1.2.13. For each level and strategy it
    has the hash of all streams of `grid_input` one after the other, with every memLevel and window.
    `corrections_golden.json` has correction records and the SHA-256 hashes of their streams.
    """
    golden = json.loads(GOLDEN.read_text())
    inputs = dict(golden_inputs())
    wrong = []
    for name, raw in inputs.items():
        outputs = golden["vectors"][name]["output"]
        assert hashlib.sha256(raw).hexdigest() == golden["vectors"][name]["input"]
        for params in GOLDEN_PARAMS:
            streams = [kernel.deflate(raw, params)]
            if name == "rows edited":
                streams.append(kernel.delta(inputs["rows"], raw, params))
                streams.append(kernel.deflate(raw, params, 3, 700))
            if {_digest(stream) for stream in streams} != {outputs[",".join(map(str, params))]}:
                wrong.append(f"{name} {params}")
    raw = grid_input()
    assert hashlib.sha256(raw).hexdigest() == golden["grid"]["input"]
    for mode, digest in golden["grid"]["output"].items():
        level, strategy = map(int, mode.split(","))
        if _digest(*(kernel.deflate(raw, params) for params in grid(level, strategy))) != digest:
            wrong.append(f"grid {mode}")
    for name, expected in json.loads(RECORDS.read_text()).items():
        raw = texture(random.Random(name), expected["size"])
        body = kernel.apply(bytes.fromhex(expected["record"]), raw)
        if hashlib.sha256(body).hexdigest() != expected["body"]:
            wrong.append(f"record {name}")
    return wrong


def _digest(*streams: bytes) -> str:
    return hashlib.sha256(b"".join(streams)).hexdigest()[:32]


def cases(seed: int) -> Iterator[tuple[str, bytes, Params]]:
    """Endless cases: ten rounds over a set of inputs with random parameters, then new inputs."""
    rng = random.Random(seed)
    while True:
        inputs = list(edge_inputs(rng.getrandbits(32)))
        for _ in range(10):
            for name, raw in inputs:
                yield name, raw, rng.choice(ALL_PARAMS)


def difference(kernel: Kernel, raw: bytes, params: Params, turn: int) -> str:
    """The function of the kernel that differs from zlib; empty if none does."""
    expected = stored(raw) if params[0] == 0 else oracle(raw, *params)
    if kernel.deflate(raw, params) != expected:
        return "full"
    if kernel.delta(edited(random.Random(turn), raw), raw, params, 1 + turn % 2) != expected:
        return "delta"
    if turn % 5 == 0 and kernel.deflate(raw, params, 3, turn % 700) != expected:
        return "threads"
    if turn % 5 == 1:
        found = kernel.identify(expected, raw)
        made = any(kernel.deflate(raw, guess) == expected for guess in found)
        # Many parameters can make stored blocks and streams of few symbols. The list is then cut
        # off and may not have the right ones.
        if not made and len(found) < engine.MOST_CANDIDATES:
            return "identify"
    if turn % 10 == 2:
        record = kernel.record(expected, raw)
        if record != Native().record(expected, raw):
            return "record"
        if record and kernel.apply(record, raw) != expected:
            return "apply"
    return ""


def main() -> None:
    arguments = sys.argv[1:]
    numbers = [int(arguments.pop(0)) for _ in range(2) if arguments and arguments[0].isdigit()]
    count, seed = (*numbers, *(20_000, 1)[len(numbers) :])
    kernel: Native | Piped = Piped(arguments) if arguments else Native()
    wrong = golden_differences(kernel)
    if wrong:
        sys.exit("golden vectors differ: " + "; ".join(wrong))
    print("golden vectors: equal", flush=True)
    start = told = time.monotonic()
    for turn, (name, raw, params) in zip(range(count), cases(seed), strict=False):
        what = difference(kernel, raw, params, turn)
        if what:
            sys.exit(f"{what} differs from zlib: {name!r}, {params}, case {turn} of seed {seed}")
        if time.monotonic() - told >= 60:
            told = time.monotonic()
            print(f"{turn + 1} cases, {told - start:.0f} s: 0 differences", flush=True)
    print(f"{count} cases, seed {seed}, {time.monotonic() - start:.0f} s: 0 differences")


if __name__ == "__main__":
    main()
