"""The worker's agents: events, metadata and ranker examples, each batch in one atomic step."""
