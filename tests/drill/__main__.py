"""`python -m tests.drill`: the drill at full size; exit code 1 for lost or doubled effects.

Prints a JSON report with the number of faults of each kind, and all differences.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.drill.faults import FAULTS
from tests.drill.storm import Plan, run


def main() -> int:
    """Run the drill that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="How many, over all kinds.")
    parser.add_argument("--seed", type=int, default=7, help="Of the load and of the faults.")
    parser.add_argument("--rate", type=float, default=40, help="Messages a second.")
    parser.add_argument("--audit-every", type=int, default=25, help="Faults between two audits.")
    parser.add_argument("--only", nargs="*", default=list(FAULTS), help="Kinds of faults.")
    parser.add_argument("--keep", type=Path, help="Folder for data and logs; default: none stay.")
    parser.add_argument("--list", action="store_true", help="Only list the kinds.")
    options = parser.parse_args()
    if options.list:
        kinds = (f"{name:<30} {fault.summary}\n" for name, fault in FAULTS.items())
        sys.stdout.writelines(kinds)
        return 0
    # Told to end, it takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(
        n_faults=options.faults,
        seed=options.seed,
        per_s=options.rate,
        audit_every=options.audit_every,
        names=options.only,
    )
    with tempfile.TemporaryDirectory(prefix="recommender-drill-") as folder:
        report = run(
            options.keep or Path(folder),
            plan,
            say=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
        )
    print(json.dumps(report, indent=1))  # noqa: T201  the report is what this command prints
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
