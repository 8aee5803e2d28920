"""State of items: metadata, listings, rates, a process's cache of properties."""
