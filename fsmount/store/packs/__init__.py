"""Packs and staged files: they hold the bodies of all files."""
