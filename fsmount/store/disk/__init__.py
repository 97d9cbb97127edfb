"""System calls that change a store, and disk space that is reserved for deleting."""
