"""HTTP out: recommendations, events in, the live page, health and metrics."""
