"""Objects that are encrypted before they leave: `docs/remote-format.md` specifies them."""
