"""From staged files to committed objects."""
