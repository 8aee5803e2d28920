"""Sending to Kafka: messages, producers, their errors and receipts."""
