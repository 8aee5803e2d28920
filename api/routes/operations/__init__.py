"""Routes for who runs the service: its state, settings, keys, figures, audit and what failed."""
