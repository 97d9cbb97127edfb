"""Tests of `fsmount.adopt`, without a mount."""
