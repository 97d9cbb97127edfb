"""Start-up after a crash, check, repair, and whether the index is consistent."""
