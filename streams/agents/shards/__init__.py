"""A group of several shards in a worker: both hops, the outboxes between them, and hot lists."""
