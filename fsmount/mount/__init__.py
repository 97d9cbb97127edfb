"""The store as a mounted folder."""
