"""Processes and servers around the recommender: embedded servers, supervision, the demo."""
