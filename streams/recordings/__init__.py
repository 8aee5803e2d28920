"""Recorded events: read for evaluation, and replayed into Kafka."""
