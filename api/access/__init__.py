"""Access control: roles of routes, API keys of requests, and sessions of browsers."""
