"""Answers to requests: snapshots of the state, the recommender, exploration, and dataset groups."""
