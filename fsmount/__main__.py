"""``python -m fsmount``."""

from fsmount.cli import main

if __name__ == "__main__":
    main()
