"""Copies of all state, their replacement, and the check of their format."""
