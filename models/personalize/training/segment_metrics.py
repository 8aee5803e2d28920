"""Amazon Personalize's evaluation of recipes that segment users.

The oldest four fifths of each user's events are learned. Of an item, or of items with an attribute,
the users that are found are compared with those who took one in the rest: as many as 1% of all.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from models.errors import InvalidInput
from models.evaluation.query_steps import sort_and_shuffle
from models.filters.attribute_queries import parse_attribute_query
from models.metadata_records import Properties, categories_of
from models.personalize.training.solution_metrics import WatchEvents
from models.serving.local import LocalRecommender
from models.serving.merchandising.user_segments import users_of_item, users_of_items
from models.serving.recommender import Recommender
from models.state.users.interactions import Interaction

TRAIN_SHARE = 0.8
TOP_SHARE = 0.01
"""Users of a segment that count, as a share of all."""

MAX_SEGMENTS = 100
"""Items or attributes that are measured: those with the most users in the rest."""


class AskedSegment(NamedTuple):
    """A segment to find: its item or query, and the users who took it in the rest."""

    asked: str
    actual: frozenset[str]


def split_users(
    interactions: Iterable[Interaction],
) -> tuple[list[Interaction], list[Interaction]]:
    """The oldest part of each user's events, and the rest, both in order of time.

    A user with a single event has nothing in the rest.

    >>> events = [Interaction("ada", f"i{n}", "view", n) for n in range(10)]
    >>> [len(part) for part in split_users(events)]
    [8, 2]
    """
    of_users: dict[str, list[Interaction]] = defaultdict(list)
    for event in sort_and_shuffle(interactions):
        of_users[event.user].append(event)
    train, rest = [], []
    for own in of_users.values():
        cut = max(1, int(TRAIN_SHARE * len(own)))
        train += own[:cut]
        rest += own[cut:]
    return sort_and_shuffle(train), sort_and_shuffle(rest)


def segments_of(
    rest: Iterable[Interaction], properties: Mapping[str, Properties] | None
) -> list[AskedSegment]:
    """The segments with the most users.

    Parameters
    ----------
    properties
        Of items, whose categories are the attributes; None for segments by item.
    """
    users: dict[str, set[str]] = defaultdict(set)
    for event in rest:
        for asked in _asked(event.item, properties):
            users[asked].add(event.user)
    largest = sorted(users, key=lambda asked: (-len(users[asked]), asked))[:MAX_SEGMENTS]
    return [AskedSegment(asked, frozenset(users[asked])) for asked in largest]


def evaluate_segments(
    local: LocalRecommender,
    interactions: Iterable[Interaction],
    *,
    properties: Mapping[str, Properties] | None = None,
    watched: WatchEvents = iter,
) -> dict[str, float]:
    """Metrics of a recipe; `local` learns the events that are for training.

    Parameters
    ----------
    properties
        Of items, for a recipe by attributes; None for one by items.
    watched
        Passes on all events that are learned.
    """
    train, rest = split_users(interactions)
    if properties is not None:
        local.describe({item: {**found} for item, found in properties.items()})
    for event in watched(train):
        local.learn(event.user, event.item, event.type, at_s=event.at_s)
    segments = segments_of(rest, properties)
    found = [
        local.run(functools.partial(_users_of, segment.asked, properties is None))
        for segment in segments
    ]
    n_users = len({event.user for event in train})
    return segment_metrics(found, [one.actual for one in segments], n_users=n_users)


async def _users_of(asked: str, is_item: bool, recommender: Recommender, now_s: float) -> list[str]:
    if is_item:
        return await users_of_item(recommender, asked, now_s=now_s)
    return await users_of_items(recommender, parse_attribute_query(asked))


def segment_metrics(
    found: Sequence[Sequence[str]], actual: Sequence[Collection[str]], *, n_users: int
) -> dict[str, float]:
    """Coverage, and means over segments of hits and recall within the top users.

    Parameters
    ----------
    found
        Users of each segment, the likeliest first.
    actual
        Those who took it, one or more, in the same order.
    n_users
        Users in all.

    Examples
    --------
    >>> segment_metrics([["ada", "bob"], ["cy"]], [{"ada"}, {"ada", "cy"}], n_users=100)
    {'coverage': 0.02, 'hit': 1.0, 'recall': 0.75}
    """
    k = max(1, round(TOP_SHARE * n_users))
    tops = [users[:k] for users in found]
    hits = [len({*top} & {*own}) for top, own in zip(tops, actual, strict=True)]
    recalls = [hit / len(own) for hit, own in zip(hits, actual, strict=True)]
    n = max(len(tops), 1)
    shown = Counter(user for top in tops for user in top)
    return {
        "coverage": len(shown) / max(n_users, 1),
        "hit": sum(hits) / n,
        "recall": sum(recalls) / n,
    }


def _asked(item: str, properties: Mapping[str, Properties] | None) -> list[str]:
    """Items or attribute queries that an event on an item is of."""
    if properties is None:
        return [item]
    queries = []
    for category in categories_of(properties.get(item, {})):
        column, _, value = category.partition("=")
        query = f'ITEMS.{column} = "{value}"'
        try:
            parse_attribute_query(query)
        except InvalidInput:
            continue  # a value with a quote cannot be asked for
        queries.append(query)
    return queries
