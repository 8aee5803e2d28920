"""Kafka: connections, topics, producers, offsets, dead letters, and the Faust app."""
