"""Maintenance of committed objects: repack, reclaim, second copies."""
