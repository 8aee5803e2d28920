"""The routes of the recommender's own HTTP API."""
