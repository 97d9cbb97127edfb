"""Tests of `fsmount.desktop`, without a mount."""
