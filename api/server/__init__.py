"""The HTTP server: its protocol, and the limits on connections, requests and what is under way."""
