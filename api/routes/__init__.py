"""Routes of the recommender's own HTTP API: events, metadata, answers; packages of all others."""
