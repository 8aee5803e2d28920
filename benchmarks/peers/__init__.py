"""Measurements of this project beside others: same events, queries, machine and run.

    python -m benchmarks.peers [--help]

Each peer is one module that gives a `Peer`; `measure.py` puts the same questions to all.
"""
