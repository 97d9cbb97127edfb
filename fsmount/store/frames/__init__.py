"""Frames: plan which tiles to copy from earlier objects, encode frames and decode them."""
