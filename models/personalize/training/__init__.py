"""Training of solution versions: their data, options and hyperparameters, and how they measure."""
