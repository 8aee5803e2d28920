"""Datasets: their schemas, and their rows in an import."""
