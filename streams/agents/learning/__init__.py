"""The ranker in a worker: its examples, learning, catch-up, factors of items, and challengers."""
