"""Start-up after a crash, check, repair, and the consistency of the index."""
