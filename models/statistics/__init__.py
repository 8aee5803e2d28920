"""Statistics that may be looked at any time: pure functions of sums over users."""
