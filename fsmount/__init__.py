"""fsmount: a compressed store of screenshots that appears as a folder of ordinary PNG files."""

__version__ = "0.1.0"
