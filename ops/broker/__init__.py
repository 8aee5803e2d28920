"""A Kafka-protocol broker of one process, for trying out, developing and testing.

It keeps messages in files without a name, which end with it. See docs/decisions for why.
"""
