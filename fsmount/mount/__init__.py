"""A store, or another tree of files, as a mounted folder."""
