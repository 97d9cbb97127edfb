"""Image formats of payloads, and the choice among them."""
