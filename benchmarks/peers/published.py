"""Published figures of peers that cannot be built from the package registries."""

from __future__ import annotations

PUBLISHED = (
    {
        "name": "Gorse 0.5 (Go)",
        "not_run": "its module is not on the Go proxy, and there is no package of its server",
        "published": {
            "freshness": "a user's list within 1 min, models each 60 min (its defaults)",
            "source": "https://github.com/gorse-io/docs, config.md",
        },
    },
    {
        "name": "Metarank 0.7 (Scala)",
        "not_run": "no package registry has its server",
        "published": {
            "ingest_per_s": "1,000 to 3,000",
            "answers": "20 to 30 ms, on hardware that is not stated",
            "memory_mib": "812 for 1 M users",
            "source": "https://github.com/metarank/metarank, doc/performance.md",
        },
    },
)
"""Peers with their figures and where those stand; the reason why they did not run beside."""
