"""Packs and staged files: where bodies lie."""
