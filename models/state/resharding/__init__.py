"""Moves a group's state to another number of shards."""
