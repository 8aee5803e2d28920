"""Kinds of faults of the drill, and their registry."""
