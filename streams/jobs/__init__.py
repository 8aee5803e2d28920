"""The runner of Personalize jobs: imports, exports, deletions, training and batch inference."""
