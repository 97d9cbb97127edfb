"""Exact PNG bytes, delta coding, image codecs, and the native kernel."""
