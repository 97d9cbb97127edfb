"""Tests of the store, in the same folders as the modules of ``fsmount/store``."""
