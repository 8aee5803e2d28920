"""Routes of a shop's wishes: placements, segments, experiments, filters and their outcomes."""
