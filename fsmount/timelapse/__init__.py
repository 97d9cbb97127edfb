"""Time lapses of the pictures of a store, as videos and animations."""
