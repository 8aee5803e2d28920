"""Answers of several shards as one of the group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

LATEST = frozenset({"clock", "accepted_at", "applied_at"})
"""Counts of a group that are times: the latest of its shards is the group's."""

NUMBERS_GIVEN = frozenset({"item_index", "owner_index", "session_index"})
"""The last numbers that a shard has given."""

OF_ONE_SHARD = frozenset({"format", "changes", *NUMBERS_GIVEN})
"""Fields of a shard's counts that add up to nothing."""

ADDED_BY_STEPS = frozenset(
    (
        "events", "imported", "purchases", "negatives", "undone", "undone_purchases",
        "duplicates", "items", "users", "sessions", "erased",
    )
)  # fmt: skip
"""Sums of what steps of events have done."""

OF_RECORDS = frozenset(
    (
        "item_updates", "user_updates", "hidden_updates", "expiry_updates", "variants",
        "variant_updates", "term_updates",
    )
)  # fmt: skip
"""Sums of what steps of metadata have changed."""

OF_STEPS = ADDED_BY_STEPS | LATEST | OF_ONE_SHARD | OF_RECORDS
"""Fields of counts that steps write: they move with a group's shards."""


def counts_beside_steps(counts: dict[str, float]) -> dict[str, float]:
    """Counts of a group of several shards that stand under its own name.

    Those of steps there are of a time when it had one shard, or is about to have.

    >>> counts_beside_steps({"events": 2, "item_updates": 1, "factor_updates": 3})
    {'factor_updates': 3}
    """
    return {name: value for name, value in counts.items() if name not in OF_STEPS}


def merged_counts(of_shards: Iterable[dict[str, float]]) -> dict[str, float]:
    """Counters of all shards in one; times are the latest.

    >>> merged_counts([{"events": 2, "clock": 7}, {"events": 3, "clock": 5, "item_index": 9}])
    {'events': 5, 'clock': 7}
    """
    found: dict[str, float] = {}
    for counts in of_shards:
        for name, value in counts.items():
            if name in LATEST:
                found[name] = max(found.get(name, value), value)
            elif name not in OF_ONE_SHARD:
                found[name] = found.get(name, 0) + value
    return found


def merged_count(name: object, of_shards: Sequence[bytes | None]) -> float:
    """A count of all shards: their sum, or the greatest of times and numbers of the last change.

    >>> merged_count("clock", [None, b"7", b"5"]), merged_count("variants", [b"1", b"2"])
    (7.0, 3.0)
    """
    values = (float(raw or 0) for raw in of_shards)
    return sum(values) if name in OF_RECORDS else max(values)


def merged_tops(of_shards: Sequence[Any], n: int, *, with_scores: bool) -> list[Any]:
    """The best n members of the sorted sets of all shards, best first, as Redis orders them.

    The head of a group's list is in the heads of its shards' lists, as an item is in one shard.

    >>> merged_tops([[[b"3", 2.0]], [[b"70", 5.0], [b"9", 2.0]]], 2, with_scores=False)
    [b'70', b'9']
    """
    scored = [pair for answer in of_shards for pair in scored_members(answer)]
    scored.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
    return [[*pair] for pair in scored[:n]] if with_scores else [name for name, _ in scored[:n]]


def scored_members(answer: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Members of a sorted set and their scores, as either version of the protocol gives them.

    >>> scored_members([b"7", b"1.5"]), scored_members([[b"7", 1.5]])
    ([(b'7', 1.5)], [(b'7', 1.5)])
    """
    if answer and isinstance(answer[0], list):
        return [(name, float(score)) for name, score in answer]
    return [(name, float(score)) for name, score in zip(answer[::2], answer[1::2], strict=True)]
