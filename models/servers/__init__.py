"""The servers in the settings: what listens there, if it can be used, and options of clients."""
