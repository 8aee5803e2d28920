"""The recommender itself: events, state, retrieval, ranking, evaluation. Runs without a server."""
