"""The forwarder: events on their way to Amazon Personalize."""
