"""Records of the work of processes: catch-ups, runs, workers, positions, key figures, memory."""
