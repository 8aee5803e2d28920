"""The registry of dataset groups, and their API keys."""
