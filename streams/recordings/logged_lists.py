"""The served lists that Kafka still has, with what came of them."""

from __future__ import annotations

from collections.abc import Iterator

from models.errors import InvalidEvent
from models.evaluation.drawn_lists import RewardedList
from models.evaluation.list_outcomes import Reward, TakenItem, rewarded_lists
from models.events import Erasure, parse, parse_erasure
from models.served_messages import ServedList, parse_served
from models.settings import Settings
from models.state.event_types import EventTypes
from streams.kafka.consuming.offsets import messages, offsets_at
from streams.kafka.topics import Topics

MAX_LISTS = 100_000
"""Lists that are looked at: the newest of the time."""


def logged_lists(
    settings: Settings,
    reward: Reward,
    *,
    since_s: float,
    now_s: float,
    placement: str | None = None,
) -> list[RewardedList]:
    """Lists of the settings' group that were served since a time, oldest first; blocking.

    Messages that are no lists or events are left out, as workers do, and what an erased user was
    served or did before. Of an own tracking id, events of other groups do not count.

    Raises
    ------
    Unavailable
        Kafka does not answer, or lacks a topic.
    """
    erased: dict[str, float] = {}
    taken = [*_taken(settings, since_s, now_s, erased)]
    served = sorted(_served(settings, since_s, now_s), key=lambda one: one.served_at)
    kept = [
        one
        for one in served[-MAX_LISTS:]
        if placement in {None, one.placement}
        and one.served_at > erased.get(f"u:{one.user_id}", -1.0)
    ]
    return rewarded_lists(
        kept,
        [one for one in taken if all(one.at_s > erased.get(own, -1.0) for own in one.owners)],
        reward,
        window_s=settings.outcome_window_s,
    )


def _served(settings: Settings, since_s: float, now_s: float) -> Iterator[ServedList]:
    topic = Topics.of(settings).served
    for record in messages(settings, offsets_at(settings, [topic], at_s=since_s)):
        try:
            found = parse_served(record.value or b"", now_s=now_s)
        except InvalidEvent:
            # Workers made a dead letter of it.
            continue
        if found.group == settings.group:
            yield from (one for one in found.lists if one.served_at >= since_s)


def _taken(
    settings: Settings, since_s: float, now_s: float, erased: dict[str, float]
) -> Iterator[TakenItem]:
    topics, types = Topics.of(settings), EventTypes.of(settings)
    starts = offsets_at(settings, [topics.clicks, topics.purchases], at_s=since_s)
    for record in messages(settings, starts):
        raw = record.value or b""
        try:
            erasure = parse_erasure(raw, now_s=now_s)
            found = erasure or parse(raw, now_s=now_s)
        except InvalidEvent:
            continue
        if isinstance(found, Erasure):
            if found.erase == settings.group:
                erased[f"u:{found.user_id}"] = found.accepted_at
            continue
        if found.tracking_id not in {None, settings.tracking_id}:
            continue
        owners = [f"s:{found.session_id}"]
        owners += [f"u:{found.user_id}"] if found.user_id else []
        for event in found.event_list:
            if event.item_id and not types.effect(event.event_type):
                yield TakenItem(
                    event.item_id,
                    tuple(owners),
                    event.sent_at,
                    event.recommendation_id or "",
                    types.is_purchase(event.event_type),
                    event.event_value or 0.0,
                )
