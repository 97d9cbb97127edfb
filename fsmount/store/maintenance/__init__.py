"""Work on committed objects: repack, reclaim, second copies."""
