"""Messages of events and erasures, drawn at random, and a way to send some."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from models.state import layout
from models.state.messages import (
    NO_TYPES,
    Part,
    StoredEvent,
    StoredMessage,
    shard_of,
)
from models.state.store import Store
from tests.models.state.reference import NOW

EVENTS = st.builds(
    StoredEvent,
    item_id=st.sampled_from(["", *"abcdefgh"]),
    time=st.integers(NOW - 40 * 86400, NOW) | st.integers(NOW - 2, NOW),
    type=st.sampled_from(["click", "Click", "purchase"]),
    log2_weight=st.sampled_from([0.0, 1.0, math.log2(3)]),
    is_purchase=st.booleans(),
    hash=st.integers(1, 60) | st.integers(1, 60).map(lambda n: n + 2**40 - 2**16),
    context=st.dictionaries(
        st.sampled_from(["device", "hour", "colour"]),
        st.lists(st.sampled_from(["phone", "5", "ü=|"]), max_size=2, unique=True),
        max_size=3,
    ),
    millisecond=st.sampled_from([0, 0, 999]),
    recommendation_id=st.sampled_from(["", "r1"]),
    value=st.sampled_from([0, 1500]),
    effect=st.sampled_from([0, 0, 0, layout.HIDES, layout.SINKS]),
    # What takes others back is tried in test_withdrawals.py.
    undoes=st.just(0),
    types=st.just(NO_TYPES),
)


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["", "", "u1", "u2"]),
        st.sampled_from(["s1", "s4", "s5", "u1"]),
        st.lists(EVENTS, min_size=1, max_size=4),
    )
    | st.tuples(
        st.sampled_from(["u1", "u2"]),
        st.sampled_from(["s1", "s4"]),
        st.sampled_from([NOW - 86400.0, NOW - 1.0, NOW + 0.5, NOW + 1.0]),
    ),
    max_size=25,
)


assert {shard_of(session) % 2 for session in ("s1", "s4")} == {0, 1}, "both partitions in use"


async def send(store: Store, *messages: StoredMessage, batch: int = 100) -> dict[str, int]:
    """Apply messages to one partition, whose first offset is 0; returns the last step's counts."""
    counts: dict[str, int] = {}
    for at in range(0, len(messages), batch):
        part = Part("p/0", messages[at].offset - 1, list(messages[at : at + batch]))
        results, counts = await store.apply([part], now_s=NOW)
        assert results[0].status == "applied"
    return counts
