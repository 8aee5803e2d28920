"""Batch inference: lines of its files, themes, and runs of its pipeline."""
