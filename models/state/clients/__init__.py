"""Clients of Redis: of a server, Sentinels, a cluster, replicas; and reads that tasks share."""
