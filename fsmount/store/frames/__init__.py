"""Frames: which tiles to refer to, and how to decode them."""
