"""The report of a drill: for a program, and for a reader."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ops.drill.course import DrillOutcome
from ops.drill.observations import covered_s
from ops.drill.reads import event_ids
from ops.drill.site import Site

MOST_SHOWN = 50
"""Differences of a kind that are named."""


def report_of(site: Site, outcome: DrillOutcome, *, seed: int) -> dict[str, Any]:
    """All figures of a drill, as JSON has them; `passed` if nothing was lost, doubled or wrong."""
    sent, seen, found = site.load.sent, site.load.observed, outcome.findings
    kept = {name for tail in site.tails for record in tail.kept for name in event_ids(record)}
    passed = found.is_clean() and not (outcome.ended or sent.refused or outcome.errors)
    kinds = seen.by_kind()
    return {
        "passed": passed and outcome.n_audits > 0,
        "seed": seed,
        "seconds": round(outcome.seconds),
        "faults": outcome.done.total(),
        "kinds": len(outcome.done),
        "lost": len(found.lost) + len(found.unacknowledged_loss),
        "doubled": len(found.doubled),
        "unavailable_s": round(covered_s(seen.away), 1),
        "unaccepted_s": round(covered_s(seen.unaccepted), 1),
        "unanswered_s": round(covered_s(seen.unanswered), 1),
        "longest_unavailable_s": round(max((end - at for at, end in seen.away), default=0.0), 1),
        "worst_freshness_s": round(seen.worst_freshness_s, 2),
        "longest_catching_up_s": round(max(outcome.settled_s, default=0.0), 1),
        "by_kind": {
            name: {
                "times": outcome.done[name],
                "unavailable_s": round(own.unavailable_s, 2),
                "freshness_s": round(own.freshness_s, 2),
                "recovery_s": None if own.recovery_s is None else round(own.recovery_s, 2),
                "seen": outcome.seen.get(name, ""),
            }
            for name, own in kinds.items()
        },
        "acknowledged_events": len(sent.acknowledged.keys() | sent.lost_by_kafka),
        "lost_by_kafka": len(sent.lost_by_kafka),
        "of_these_in_effect": len(kept & sent.lost_by_kafka),
        "of_these_sent_again": len(sent.lost_by_kafka & sent.acknowledged.keys()),
        "sent_again": sent.repeated,
        "messages": found.n_messages,
        "audits": outcome.n_audits,
        "compared": dict(sorted(found.n_compared.items())),
        "answers": dict(sorted(sent.answers.items())),
        "ended_by_themselves": outcome.ended,
        "findings": {
            name: values[:MOST_SHOWN]
            for name, values in asdict(found).items()
            if isinstance(values, list)
        },
        "refused": sent.refused[:MOST_SHOWN],
        "errors": outcome.errors[:MOST_SHOWN],
    }


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report as a table of the kinds, what was found, and the sums."""
    lines = [f"{'fault':<36}{'times':>6}{'unavailable':>13}{'freshness':>11}{'recovery':>10}"]
    for name, own in report["by_kind"].items():
        recovery = "-" if own["recovery_s"] is None else f"{own['recovery_s']:.1f} s"
        lines.append(
            f"{name:<36}{own['times']:>6}{own['unavailable_s']:>11.1f} s"
            f"{own['freshness_s']:>9.1f} s{recovery:>10}"
        )
    for name in ("findings", "ended_by_themselves"):
        lines += [f"{kind}: {one}" for kind, found in report[name].items() for one in found]
    lines += [f"{name}: {one}" for name in ("refused", "errors") for one in report[name]]
    verdict = "passed" if report["passed"] else "NOT PASSED"
    compared = ", ".join(f"{n} {name}" for name, n in report["compared"].items())
    lines += [
        f"{report['faults']} faults of {report['kinds']} kinds in {report['seconds']} s",
        f"seed {report['seed']}, {report['acknowledged_events']} events acknowledged",
        f"compared with an undisturbed run: {compared}",
        f"unavailable {report['unavailable_s']} s, worst freshness {report['worst_freshness_s']} s",
        f"lost {report['lost']}, doubled {report['doubled']}: {verdict}",
    ]
    return lines
