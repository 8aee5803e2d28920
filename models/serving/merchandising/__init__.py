"""A shop's own wishes: rules, placements, experiments, segments, variants."""
