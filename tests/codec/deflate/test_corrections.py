"""Correction records re-create streams of other encoders.

The tests compare the decoder of the kernel with the one of contrib/unpack.py.
"""

from __future__ import annotations

import hashlib
import json
import random
import runpy
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from fsmount.codec import _kernel
from tests.support import corpus
from tests.support.deflate_inputs import edge_inputs, odd_length, oracle, texture
from tests.support.paths import CHECKOUT, DATA
from tests.support.pngs import image_data

kernel: Any = _kernel

GOLDEN = DATA / "corrections_golden.json"
# contrib/unpack.py has the same decoder in plain Python.
_UNPACK = runpy.run_path(str(CHECKOUT / "contrib" / "unpack.py"))
reference: Callable[[bytes, bytes], bytes] = _UNPACK["corrected"]


def flushed(raw: bytes, level: int = 6) -> bytes:
    """A stream of classic zlib that uses every flush mode.

    It has empty stored blocks and short blocks.
    """
    engine = zlib.compressobj(level, zlib.DEFLATED, -15)
    modes = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_BLOCK)
    parts = []
    for at in range(0, len(raw), 997):
        parts += [engine.compress(raw[at : at + 997]), engine.flush(modes[at % 4])]
    return b"".join([*parts, engine.flush()])


def pieces(raw: bytes) -> bytes:
    """A stream of two encoders: one codes the first half of `raw`, the other the second half."""
    half = len(raw) // 2
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = engine.compress(raw[:half]) + engine.flush(zlib.Z_SYNC_FLUSH)
    return first + oracle(raw[half:], 1, 0, 9, 15)


def fuzzy(rng: random.Random, raw: bytes) -> bytes:
    """A stream that follows no rule of an encoder.

    It has fixed codes. Chance decides between match and literal.
    """
    bits = ["110"]
    at = 0
    while at < len(raw):
        distance = rng.choice((1, 2, 3, 4))
        length = 0
        if distance <= at and rng.random() < 0.7:
            while length < 10 and at + length < len(raw):
                if raw[at + length] != raw[at + length - distance]:
                    break
                length += 1
        if length >= 3:
            bits += [f"{length - 2:07b}", f"{distance - 1:05b}"]
            at += length
        elif raw[at] < 144:
            bits.append(f"{0x30 + raw[at]:08b}")
            at += 1
        else:
            bits.append(f"{0x190 + raw[at] - 144:09b}")
            at += 1
    whole = "".join([*bits, "0000000"])
    return int(whole[::-1], 2).to_bytes(-(-len(whole) // 8), "little")


Maker = Callable[[bytes], bytes]
MAKERS: dict[str, Maker] = {
    "flushed": flushed,
    "level 1, flushed": lambda raw: flushed(raw, 1),
    "level 0": lambda raw: oracle(raw, 0, 0, 8, 15),
    "level 3": lambda raw: oracle(raw, 3, 0, 8, 15),
    "level 6": lambda raw: oracle(raw, 6, 0, 8, 15),
    "level 9, small": lambda raw: oracle(raw, 9, 0, 1, 9),
    "filtered": lambda raw: oracle(raw, 6, zlib.Z_FILTERED, 9, 15),
    "runs": lambda raw: oracle(raw, 6, zlib.Z_RLE, 8, 15),
    "huffman": lambda raw: oracle(raw, 6, zlib.Z_HUFFMAN_ONLY, 8, 15),
    "fixed": lambda raw: oracle(raw, 6, zlib.Z_FIXED, 8, 15),
    "two encoders": pieces,
    "by chance": lambda raw: fuzzy(random.Random(len(raw)), raw),
}


@pytest.mark.parametrize("name", MAKERS)
def test_any_stream_comes_back(name: str) -> None:
    raws = [raw for _, raw in edge_inputs(3) if len(raw) < 70_000]
    for raw in [*random.Random(name).sample(raws, 8), b""]:
        body = MAKERS[name](raw)
        made = kernel.correct(body, raw)
        assert made is not None
        assert kernel.apply(made[0], raw) == body
        if len(raw) < 3000:
            assert reference(made[0], raw) == body


@pytest.mark.parametrize("name", MAKERS)
def test_both_decoders_agree(name: str) -> None:
    raw = texture(random.Random(name), 9_000)
    body = MAKERS[name](raw)
    made = kernel.correct(body, raw)
    assert made is not None
    assert reference(made[0], raw) == kernel.apply(made[0], raw) == body


def test_classic_zlib_costs_next_to_nothing() -> None:
    raw = texture(random.Random(1), 300_000)
    for level in (1, 6, 9):
        record, _ = kernel.correct(oracle(raw, level, 0, 8, 15), raw)
        assert len(record) < 400, level


def test_models_are_found_again() -> None:
    raw = texture(random.Random(1), 100_000)
    body = fuzzy(random.Random(1), raw)
    record, model = kernel.correct(body, raw)
    again, same = kernel.correct(body, raw, model * 4)
    assert same == model
    assert again == record
    for wrong in (model[:-1], model * 5):
        with pytest.raises(ValueError, match="not models"):
            kernel.correct(body, raw, wrong)
    # A meaningless model does no harm: the record still re-creates the stream.
    made = kernel.correct(body, raw, bytes(range(len(model))))
    assert kernel.apply(made[0], raw) == body


def test_what_is_no_stream() -> None:
    raw = bytes(400) + texture(random.Random(1), 5000)
    body = oracle(raw, 6, 0, 8, 15)
    for wrong in (b"", body[:-1], body + b"\0", oracle(raw[:-1], 6, 0, 8, 15), b"\xff" * 99):
        assert kernel.correct(wrong, raw) is None
    assert kernel.correct(odd_length(bytes(300)), bytes(300)) is None


def test_damaged_records() -> None:
    """A decoder neither crashes nor works without end: it refuses, or returns some stream."""
    rng = random.Random(5)
    raw = texture(rng, 2500)
    record, _ = kernel.correct(flushed(raw), raw)
    for _ in range(150):
        damaged = bytearray(record)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        cut = bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))])
        results = []
        for apply in (kernel.apply, reference):
            try:
                results.append(apply(cut, raw))
            except ValueError as error:
                assert "damaged correction record" in str(error)
                results.append(None)
        if None not in results:
            assert results[0] == results[1]
    for noise in (b"", b"\0", rng.randbytes(50), b"\0" + rng.randbytes(2000)):
        try:
            kernel.apply(noise, raw)
        except ValueError:
            continue


def test_golden() -> None:
    """The guesses must never change: stores hold records that only these guesses can read."""
    golden = json.loads(GOLDEN.read_text())
    for name, expected in golden.items():
        raw = texture(random.Random(name), expected["size"])
        assert hashlib.sha256(raw).hexdigest() == expected["input"]
        record = bytes.fromhex(expected["record"])
        for body in (kernel.apply(record, raw), reference(record, raw)):
            assert hashlib.sha256(body).hexdigest() == expected["body"], name


@pytest.mark.parametrize(
    ("name", "share"),
    [("chrome", 0.001), ("zlibng_l6", 0.001), ("libdeflate_l6", 0.06), ("isal_l2", 0.08)],
)
def test_other_encoders(name: str, share: float) -> None:
    (path,) = [path for path in corpus.files("encoders") if path.stem == name]
    stream = image_data(path.read_bytes())
    raw = zlib.decompress(stream)
    body = stream[2:-4]
    record, model = kernel.correct(body, raw)
    assert len(record) < share * len(body)
    assert kernel.apply(record, raw) == body
    again, _ = kernel.correct(body, raw, model)
    assert len(again) == len(record)


def test_chromium() -> None:
    """Chromium 156 made this screenshot of a page. The kernel predicts every token of it."""
    data = (DATA / "chromium.png").read_bytes()
    stream = image_data(data)
    raw = zlib.decompress(stream)
    record, _ = kernel.correct(stream[2:-4], raw)
    assert len(record) < 60
    assert kernel.apply(record, raw) == stream[2:-4]
    assert reference(record, raw) == stream[2:-4]
