"""Routes about one user: what is known, and what decides about answers."""
