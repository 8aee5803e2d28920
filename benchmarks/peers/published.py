"""Published figures of peers that cannot be built from the package registries."""

from __future__ import annotations

PUBLISHED = (
    {
        "name": "Gorse 0.5 (Go)",
        "not_run": "its module is not on the Go proxy, and there is no package of its server",
        "published": {
            "answers": "10 items made before .3 to .4 ms, by item neighbours 1.9 to 2.2; its "
            "handler alone, with Redis as its cache, on a machine that is not stated",
            "events": "10 at once in 1.9 to 12 ms, by database; the same",
            "freshness": "models each 60 min, answers held for 10 s (its defaults)",
            "source": "https://github.com/gorse-io/docs, benchmark.md and config.md",
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
