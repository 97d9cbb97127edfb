"""Takes PNGs apart and puts them together, as the store does."""

from __future__ import annotations

import json

from fsmount.codec.png.png import Picture, assemble, parse
from fsmount.codec.png.recipe import Recipe


def round_trip(data: bytes) -> Picture:
    """Take a PNG apart. Asserts that its frame and its recipe, through JSON and back, give it."""
    picture = parse(data)
    header = json.loads(json.dumps(picture.recipe.header()))
    recipe = Recipe.from_parts(header, picture.recipe.blobs())
    assert recipe == picture.recipe
    assert assemble(picture.frame, recipe) == data
    return picture
