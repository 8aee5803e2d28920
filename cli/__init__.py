"""The command `recommender`: wires streams, api and ops together, starts and stops processes."""

import os

# Matrices here are small: what BLAS would save in threads of its own, waking them costs. It reads
# this when numpy is loaded, so it stands before all imports.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cli import operations, personalize, processes, recordings
from cli.group import main

__all__ = ["main", "operations", "personalize", "processes", "recordings"]
