"""The HTTP server: its protocol, and limits on connections and requests."""
