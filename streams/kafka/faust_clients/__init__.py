"""Faust's app, its consumer and its producer, made for this service."""
