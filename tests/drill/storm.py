"""A drill: faults one after the other or two at once, under load, with audits in between."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.drill import (
    faults_kafka,
    faults_messages,
    faults_processes,
    faults_redis,
    faults_snapshots,
    faults_tails,
)
from tests.drill.audit import MOST_SHOWN, Account, Findings, audit
from tests.drill.faults import FAULTS, Fault, schedule
from tests.drill.load import covered_s
from tests.drill.site import Site, pause, site
from tests.drill.tails import behind, ends_of, event_ids, event_places
from tests.servers import wait_until

KINDS = (
    faults_kafka,
    faults_messages,
    faults_processes,
    faults_redis,
    faults_snapshots,
    faults_tails,
)
"""Importing them registers their faults."""

SETTLED_WITHIN_S = 240.0
SNAPSHOT_SHARE = 0.4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Parameters of a drill.

    Attributes
    ----------
    per_s
        Messages a second.
    audit_every
        Faults between two audits; another audit is at the end.
    names
        Kinds of faults to draw from.
    """

    n_faults: int
    seed: int
    per_s: float = 40.0
    audit_every: int = 25
    names: Sequence[str] = tuple(FAULTS)


def run(directory: Path, plan: Plan, *, say: Say) -> dict[str, Any]:
    """Run a drill with its data in `directory`; gives its report."""
    began_s = time.monotonic()
    chance = random.Random(plan.seed)
    done: Counter[str] = Counter()
    findings, errors, settled_s = Findings(), list[str](), list[float]()
    with site(directory, seed=plan.seed, per_s=plan.per_s) as one:
        with one.load:
            audited = 0
            for together in schedule(plan.n_faults, chance, list(plan.names)):
                names = " + ".join(fault.name for fault in together)
                say(f"{time.monotonic() - began_s:6.0f} s  {sum(done.values()):4}  {names}")
                errors += _strike(one, together, chance)
                done.update(fault.name for fault in together)
                one.up()
                if chance.random() < SNAPSHOT_SHARE:
                    one.take_snapshot()
                pause(chance, 0.1, 1.5)
                if sum(done.values()) >= audited + plan.audit_every:
                    audited = sum(done.values())
                    findings = _audited(one, settled_s)
                    if not findings.is_clean():
                        say(f"audit after {audited} faults: {_shortened(findings)}")
                        break
            if findings.is_clean():
                findings = _audited(one, settled_s)
        for process in (*one.workers, one.api):
            process.down(signal.SIGTERM)
        processes = (*one.workers, *one.guests, one.api)
        ended = {p.name: p.ended for p in processes if p.ended}
        sent, tails = one.load.sent, one.tails
    kept = {name for tail in tails for record in tail.kept for name in event_ids(record)}
    report = {
        "seed": plan.seed,
        "faults": sum(done.values()),
        "kinds": len(done),
        "by_kind": dict(sorted(done.items())),
        "seconds": round(time.monotonic() - began_s),
        "acknowledged_events": len(sent.acknowledged.keys() | sent.lost_by_kafka),
        "lost_by_kafka": len(sent.lost_by_kafka),
        "of_these_in_effect": len(kept & sent.lost_by_kafka),
        "of_these_sent_again": len(sent.lost_by_kafka & sent.acknowledged.keys()),
        "sent_again": sent.repeated,
        "unaccepted_s": round(covered_s(sent.away), 1),
        "longest_unaccepted_s": round(max((end - at for at, end in sent.away), default=0.0), 1),
        "longest_recovery_s": round(max(settled_s, default=0.0), 1),
        "answers": dict(sorted(sent.answers.items())),
        "lost": len(findings.lost) + len(findings.unacknowledged_loss),
        "doubled": len(findings.doubled),
        "ended_by_themselves": ended,
        "findings": _shortened(findings),
        "refused": sent.refused[:MOST_SHOWN],
        "errors": errors,
    }
    passed = findings.is_clean() and not ended and not sent.refused and not errors
    return {"passed": passed, **report}


def _strike(one: Site, together: list[Fault], chance: random.Random) -> list[str]:
    """Run faults concurrently; gives the errors of running them."""
    errors: list[str] = []

    def act(fault: Fault, own: random.Random) -> None:
        try:
            fault.act(one, own)
        except Exception as error:  # noqa: BLE001  the drill goes on and reports it
            errors.append(f"{fault.name}: {error!r}")

    threads = [
        threading.Thread(target=act, args=(fault, random.Random(chance.random())))
        for fault in together
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _audited(one: Site, settled_s: list[float]) -> Findings:
    """What an audit finds; adds the time until nothing waited."""
    with one.load.paused():
        began_s = time.monotonic()
        try:
            wait_until(lambda: _is_settled(one), within_s=SETTLED_WITHIN_S, what="no lag")
            settled_s.append(time.monotonic() - began_s)
        except TimeoutError as error:
            return Findings(other=[f"{error}: {_behind(one)}"])
        return audit(one.stack, one.kafka.address, _account(one))


def _account(one: Site) -> Account:
    return Account(
        acknowledged=set(one.load.sent.acknowledged),
        poison=one.poison,
        lost_poison=one.lost_poison,
        erased=one.erased,
        tails=one.tails,
    )


def _is_settled(one: Site) -> bool:
    one.up()
    return not _behind(one)


def _behind(one: Site) -> dict[str, tuple[int, int]]:
    """Watermark and end of each partition that is behind."""
    places = event_places(one.stack, one.kafka.address)
    return behind(one.stack, one.kafka.address, ends_of(one.kafka.address, places))


def _shortened(findings: Findings) -> dict[str, list[str]]:
    return {name: found[:MOST_SHOWN] for name, found in asdict(findings).items()}
