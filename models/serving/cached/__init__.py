"""State that requests share, kept for a short time in the process: by items, texts, filters."""
