"""Deflate streams that are made again bit for bit."""
