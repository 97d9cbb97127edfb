"""Retention: when pictures were taken, which of them a policy keeps, and the trash of a store."""
