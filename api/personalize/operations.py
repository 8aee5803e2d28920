"""Every operation that is implemented, by its name in the API."""

from __future__ import annotations

from collections.abc import Mapping

from api.personalize import control, events, runtime
from api.personalize.wire import Operation

OPERATIONS: Mapping[str, Operation] = {
    "PutEvents": events.put_events,
    "PutItems": events.put_items,
    "PutUsers": events.put_users,
    "GetRecommendations": runtime.get_recommendations,
    "GetPersonalizedRanking": runtime.get_personalized_ranking,
    **control.OPERATIONS,
}
