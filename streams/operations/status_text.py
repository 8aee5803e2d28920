"""The status as text: ten lines, problems first; partitions only on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from models.state.operations.shard_figures import ShardFigures, most_of_mean
from streams.operations.status import Status

STUCK_AFTER_S = 30.0
"""Age of an unapplied message from which on no worker seems to run."""

FORWARD_LATE_S = 300.0
FULL_SHARE = 0.9
MEGABYTE = 1_000_000
SHOWN_FAMILIES = 4


def as_text(status: Status, *, partitions: bool = False) -> str:
    """Ten lines, one more for shards, and with `partitions` one for each partition and shard."""
    found = list(problems(status))
    lines = [
        f"group {status.group}: " + ("; ".join(found) if found else "nothing is wrong"),
        _line("lag", _lag(status)),
        _line("freshness", _freshness(status)),
        _line("dead letters", _dead_letters(status)),
        _line("in effect", _named(status.counts)),
        *(_line(f"ranked {name}", text) for name, text in _quality(status)),
        _line("redis", _redis(status)),
        *([_line("shards", _shards(status))] if status.shards else []),
        _line("forwarding", _forwarding(status)),
        _line("jobs", _jobs(status)),
    ]
    more = [*_partitions(status), *_shard_table(status)] if partitions else []
    return "\n".join(lines + more)


def problems(status: Status) -> Iterator[str]:
    """Problems that need an operator, worst first."""
    memory = status.redis
    for stuck in status.unreadable:
        yield f"{stuck} (see `recommender skip --help`)"
    if status.moving:
        yield f"{status.moving}: events wait for that"
    if status.oldest_unapplied_age_s > STUCK_AFTER_S and not status.moving:
        yield (
            f"events wait for {status.oldest_unapplied_age_s:.0f} s: see that a worker runs, and"
            " its log"
        )
    if memory.policy != "noeviction":
        yield f"Redis evicts ({memory.policy}): set maxmemory-policy noeviction"
    if memory.limit_bytes and memory.used_bytes > FULL_SHARE * memory.limit_bytes:
        yield f"Redis is {memory.used_bytes / memory.limit_bytes:.0%} full: raise maxmemory"
    waiting_s = float(status.forward.get("oldest_waiting_age_s", 0))
    if waiting_s > FORWARD_LATE_S:
        yield f"events wait for {waiting_s:.0f} s to be forwarded"
    if status.dead_letters:
        yield f"{status.dead_letters} dead letters: see `recommender dead-letters list`"


def _line(name: str, text: str) -> str:
    return f"{name + ':':<17} {text}"


def _named(numbers: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) or "nothing yet"


def _lag(status: Status) -> str:
    behind = [partition for partition in status.partitions if partition.lag]
    if not behind:
        return "0"
    most = max(behind, key=lambda partition: partition.lag)
    return (
        f"{status.lag} messages in {len(behind)} of {len(status.partitions)} partitions, the oldest"
        f" {status.oldest_unapplied_age_s:.1f} s old; most in {most.topic}/{most.partition}:"
        f" {most.lag}"
    )


def _freshness(status: Status) -> str:
    age_s = status.newest_event_age_s
    return "no event yet" if age_s is None else f"newest event in effect {age_s:.3f} s ago"


def _dead_letters(status: Status) -> str:
    return f"{status.dead_letters}" if status.dead_letters else "none"


def _quality(status: Status) -> Iterator[tuple[str, str]]:
    for name, serving in status.serving.items():
        means = status.quality[name]
        compared = ", ".join(f"{rival} {each['mrr']:.4f}" for rival, each in means.items())
        yield (
            name,
            f"the {serving}'s order is served, after {status.examples[name]} examples"
            + (f"; MRR@20 {compared}" if compared else "")
            + (_catch_up(status) if name == "interactions" else ""),
        )


def _catch_up(status: Status) -> str:
    """Progress while the ranker catches up with kept events; empty otherwise."""
    last = status.catch_up
    if last is None or last.is_complete:
        return ""
    return f"; catching up with {last.known} kept events: {last.done} done"


def _redis(status: Status) -> str:
    memory = status.redis
    limit = f"of {memory.limit_bytes / MEGABYTE:.0f}" if memory.limit_bytes else "used, no limit"
    largest = [
        f"{name} {family.bytes / MEGABYTE:.0f}"
        for name, family in list(status.families.items())[:SHOWN_FAMILIES]
    ]
    shares = f"; about: {', '.join(largest)}" if largest else ""
    return f"{memory.used_bytes / MEGABYTE:.0f} MB {limit}, {memory.policy}{shares}"


def _shards(status: Status) -> str:
    """Their number, the busiest, and what waits for them."""
    kinds = {"u": "for users", "i": "for items"}
    busiest = most_of_mean(
        ShardFigures(one.name, one.applied, one.waiting, one.keys, one.bytes)
        for one in status.shards
    )
    shown = []
    for kind, name in kinds.items():
        n = sum(one.name[0] == kind for one in status.shards)
        which, ratio = busiest.get(kind, ("", 0))
        shown.append(
            f"{n} {name}" + (f", the busiest {which} with {ratio:.2f} of the mean" if which else "")
        )
    waiting = sum(one.waiting for one in status.shards)
    if waiting:
        most = max(status.shards, key=lambda one: one.waiting)
        shown.append(f"{waiting} values between them, most for {most.name}: {most.waiting}")
    return "; ".join(shown)


def _shard_table(status: Status) -> list[str]:
    if not status.shards:
        return []
    return [
        f"{'shard':<8}{'lag':>8}{'waiting':>9}{'applied':>14}{'keys':>12}{'MB':>10}",
        *(
            f"{one.name:<8}{one.lag:>8}{one.waiting:>9}{one.applied:>14}{one.keys:>12}"
            f"{one.bytes / MEGABYTE:>10.1f}"
            for one in status.shards
        ),
    ]


def _forwarding(status: Status) -> str:
    if not status.forward:
        return "off"
    trackers = f"{len(status.trackers)} trackers, " if len(status.trackers) > 1 else ""
    return trackers + _named(status.forward)


def _jobs(status: Status) -> str:
    if not status.jobs:
        return "none under way"
    first, *others = status.jobs
    done = f", {first.what} {first.done}" if first.what else ""
    known = f" of {first.known}" if first.known else ""
    more = f"; {len(others)} more" if others else ""
    return f"{first.path}: {first.status}{done}{known}{more}"


def _partitions(status: Status) -> list[str]:
    width = max([len("topic"), *(len(partition.topic) for partition in status.partitions)])
    head = f"{'topic':<{width}}{'partition':>11}{'end':>12}{'watermark':>12}{'lag':>8}"
    return [
        head,
        *(
            f"{p.topic:<{width}}{p.partition:>11}{p.end:>12}{p.watermark:>12}{p.lag:>8}"
            for p in status.partitions
        ),
    ]
