"""Frames as differences from earlier frames."""
