"""Lists that were served, and what became of them."""
