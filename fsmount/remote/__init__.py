"""Stores that lie elsewhere: in a bucket of object storage, or in a folder of plain objects."""
