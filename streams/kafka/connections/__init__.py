"""Connections to Kafka: how their clients show who they are, and decode what they fetch."""
