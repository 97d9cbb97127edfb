"""Tests of fsmount.mount."""
