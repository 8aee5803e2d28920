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

from kafka import KafkaConsumer, TopicPartition

from streams.kafka.topics import Topics, topic_ids
from tests.drill import faults_kafka, faults_messages, faults_processes, faults_redis
from tests.drill.audit import MOST_SHOWN, Findings, audit
from tests.drill.faults import FAULTS, Fault, schedule
from tests.drill.site import Site, pause, site
from tests.servers import wait_until

KINDS = (faults_kafka, faults_messages, faults_processes, faults_redis)
"""Importing them registers their faults."""

SETTLED_WITHIN_S = 240.0
SNAPSHOT_SHARE = 0.4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a drill does.

    Attributes
    ----------
    per_s
        Messages a second.
    audit_every
        Faults between two audits; one more comes at the end.
    names
        Kinds of faults to choose from.
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
    findings, errors = Findings(), list[str]()
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
                    findings = _audited(one)
                    if not findings.is_clean():
                        say(f"audit after {audited} faults: {_shortened(findings)}")
                        break
            if findings.is_clean():
                findings = _audited(one)
        for process in (*one.workers, one.api):
            process.down(signal.SIGTERM)
        processes = (*one.workers, *one.guests, one.api)
        ended = {p.name: p.ended for p in processes if p.ended}
        sent = one.load.sent
    report = {
        "seed": plan.seed,
        "faults": sum(done.values()),
        "kinds": len(done),
        "by_kind": dict(sorted(done.items())),
        "seconds": round(time.monotonic() - began_s),
        "acknowledged_events": len(sent.acknowledged),
        "sent_again": sent.repeated,
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
    """Bring faults about at the same time; gives what went wrong in doing so."""
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


def _audited(one: Site) -> Findings:
    with one.load.paused():
        try:
            wait_until(lambda: _is_settled(one), within_s=SETTLED_WITHIN_S, what="no lag")
        except TimeoutError as error:
            return Findings(other=[f"{error}: {_behind(one)}"])
        return audit(
            one.stack, one.kafka.address, one.load.sent.acknowledged, one.poison, one.erased
        )


def _is_settled(one: Site) -> bool:
    one.up()
    return not _behind(one)


def _behind(one: Site) -> dict[str, tuple[int, int]]:
    """Watermark and end of each partition that is behind."""
    topics = Topics.of(one.stack.settings)
    names = (topics.clicks, topics.purchases)
    consumer = KafkaConsumer(bootstrap_servers=one.kafka.address)
    try:
        partitions = [
            TopicPartition(name, n) for name in names for n in consumer.partitions_for_topic(name)
        ]
        ends = consumer.end_offsets(partitions)
    finally:
        consumer.close()
    ids = topic_ids(one.stack.settings, list(names))
    fields = [f"{ids[tp.topic]}/{tp.partition}" for tp in partitions]
    marks = one.stack.stored(lambda store: store.watermarks(fields))
    behind = {tp: mark for tp, mark in zip(partitions, marks, strict=True) if mark < ends[tp] - 1}
    return {
        f"{tp.topic}/{tp.partition}": (mark, ends[tp])
        for tp, mark in behind.items()
        if _has_message(one.kafka.address, tp, mark + 1, ends[tp])
    }


def _has_message(kafka: str, place: TopicPartition, start: int, end: int) -> bool:
    """Whether there is a message: the ends of transactions take offsets, too."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    try:
        consumer.assign([place])
        consumer.seek(place, start)
        while consumer.position(place) < end:
            if consumer.poll(timeout_ms=500):
                return True
    finally:
        consumer.close()
    return False


def _shortened(findings: Findings) -> dict[str, list[str]]:
    return {name: found[:MOST_SHOWN] for name, found in asdict(findings).items()}
