"""Worker processes, the cache of values made on demand, and frames in shared memory."""
