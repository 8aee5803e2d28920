"""Ranking of candidates: features, the online ranker, its training and its explanations."""
