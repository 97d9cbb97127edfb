"""Worker processes, caches, and frames in shared memory."""
