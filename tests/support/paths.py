"""Paths of folders in the checkout."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent
DATA = TESTS / "data"
