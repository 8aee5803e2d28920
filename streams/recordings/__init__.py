"""Files of events, read for evaluation and replayed into Kafka, and of items, imported."""
