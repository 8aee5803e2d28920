"""Operators' commands: status, replay of dead letters, and skipping of unreadable batches."""
