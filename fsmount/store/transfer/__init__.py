"""Files in and out of a store: import, export, verify, diff, estimate."""
