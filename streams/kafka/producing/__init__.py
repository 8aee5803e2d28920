"""What is sent to Kafka: messages, producers, their errors and receipts."""
