"""Speed and memory, each printed as JSON with its conditions; never asserted."""
