"""The command `recommender`: wires streams, api and ops together."""

import os

# BLAS threads cost more than they save on small matrices. BLAS reads this when numpy is loaded, so
# it stands before all imports.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cli.group import main

__all__ = ["main"]
