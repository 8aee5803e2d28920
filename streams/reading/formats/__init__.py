"""The formats of files: their contract, the registered ones, and how each is recognised."""
