"""System calls that change a store, and the room that is reserved for them."""
