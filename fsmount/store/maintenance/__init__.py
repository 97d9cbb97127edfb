"""Maintenance of committed objects: repack, reclaim, the copy of the index, parity."""
