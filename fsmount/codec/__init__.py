"""Exact PNG bytes, delta coding, image codecs and the worker processes they run in."""
