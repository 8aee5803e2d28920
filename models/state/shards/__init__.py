"""Shards of a group over several Redis primaries, and their atomic steps."""
