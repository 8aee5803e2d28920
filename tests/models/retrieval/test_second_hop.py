"""Second-order co-visitation: made where few items were co-visited, and by its definition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.retrieval.candidates import retrieve, signals_of
from models.retrieval.covisitation import (
    BOTH,
    FULL_LIST_BYTES,
    MAX_HOPS,
    MIN_FIRST_ORDER,
    SecondHops,
    hop_sources,
    unpack_neighbours,
)
from models.retrieval.profile import UserProfile, profile_of
from models.retrieval.signals import HOP
from models.state import layout
from tests.models.retrieval.test_candidates import CLICKS, HISTORIES, evidence_of, history, lists_of
from tests.models.state.pair_records import PairCodes, pack_pairs
from tests.models.state.reference import NOW


def decayed_shares(lists: Sequence[bytes]) -> dict[int, float]:
    """Sum of each item's shares in the lists, decayed by position."""
    weights: dict[int, float] = defaultdict(float)
    for distance, raw in enumerate(lists):
        items, shares = unpack_neighbours(raw, NOW)
        for item, share in zip(items.tolist(), shares[:, BOTH].tolist(), strict=True):
            weights[item] += layout.FADE**distance * share
    return weights


def short_lists(profile: UserProfile, seed: int) -> list[bytes]:
    """Neighbour lists of the recent items, of a few items each."""
    size = layout.PAIR_HEAD.size + layout.PAIR.itemsize * (seed % 7)
    return [raw[:size] for raw in lists_of(profile, seed, 60)[: layout.WINDOW]]


@given(HISTORIES, st.integers(0, 99))
def test_hop_items_are_the_most_co_visited(events: list[int], seed: int) -> None:
    """Best first, with the sum of their decayed shares; none if enough items were co-visited."""
    lists = short_lists(profile_of(history(*events), CLICKS), seed)
    expected = decayed_shares(lists)

    items, weights = hop_sources(lists, NOW)

    if len(expected) >= MIN_FIRST_ORDER:
        assert not len(items)
        return
    assert len(items) == min(MAX_HOPS, len(expected))
    assert weights.tolist() == pytest.approx(sorted(expected.values(), reverse=True)[: len(items)])
    found = dict(zip(items.tolist(), weights.tolist(), strict=True))
    assert found == pytest.approx({item: expected[item] for item in found})


def test_a_full_list_needs_no_second_hop() -> None:
    """The items are counted, or known to be enough by the length of the list."""
    enough = [PairCodes(item) for item in range(1, MIN_FIRST_ORDER + 1)]
    full = pack_pairs(enough, NOW, room=16)
    assert len(full) == FULL_LIST_BYTES
    assert not len(hop_sources([full], NOW)[0])
    assert not len(hop_sources([b"", full[: -layout.PAIR.itemsize]], NOW)[0])
    assert len(hop_sources([b"", pack_pairs(enough[:-1], NOW)], NOW)[0]) == MAX_HOPS


@given(HISTORIES.filter(any), st.integers(0, 99))
def test_the_hop_signal_is_weighted_by_the_hops(events: list[int], seed: int) -> None:
    """The signal sums the shares in the hops' lists times the hops' weights."""
    profile = profile_of(history(*events), CLICKS)
    lists = short_lists(profile, seed)
    items, weights = hop_sources(lists, NOW)
    further = short_lists(profile_of(history(*items.tolist()), CLICKS), seed + 1)
    further += [b""] * (len(items) - len(further))
    expected: dict[int, float] = defaultdict(float)
    for weight, raw in zip(weights.tolist(), further, strict=True):
        for item, share in decayed_shares([raw]).items():
            expected[item] += weight * share

    hops = SecondHops(items, weights, further)
    evidence = evidence_of(profile, lists, second_hops=hops)
    found = retrieve(profile, evidence, NOW)
    given_ = signals_of(found.items, profile, evidence, NOW)

    signals = dict(zip(found.items.tolist(), found.signals[:, HOP].tolist(), strict=True))
    reached = len({*decayed_shares(lists), *expected})
    assert reached > 120 or expected.keys() <= signals.keys()
    assert signals == pytest.approx({item: expected.get(item, 0.0) for item in signals})
    assert np.array_equal(found.signals, given_.signals)
