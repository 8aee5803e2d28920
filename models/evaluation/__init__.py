"""Prequential evaluation: the protocol, and the models that are compared."""
