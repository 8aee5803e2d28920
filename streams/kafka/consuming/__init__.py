"""Reading from Kafka: partitions, batches, positions, and where reading stands still."""
