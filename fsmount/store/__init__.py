"""The store on disk: index, packs, staging, and the facade that moves pictures through them."""
