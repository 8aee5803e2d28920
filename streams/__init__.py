"""Kafka in: topics, agents, the tracker for producers, replay, forwarding."""
