"""Second hops: looked for where little was co-visited, and counted by their definition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.retrieval.candidates import HOP, retrieve, signals_of
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
from models.state import layout
from tests.models.retrieval.test_candidates import CLICKS, HISTORIES, evidence_of, history, lists_of
from tests.models.state.reference import NOW


def faded_shares(lists: Sequence[bytes]) -> dict[int, float]:
    """By item, the sum of its shares in the lists, each fainter than the one before."""
    weights: dict[int, float] = defaultdict(float)
    for distance, raw in enumerate(lists):
        items, shares = unpack_neighbours(raw, NOW)
        for item, share in zip(items.tolist(), shares[:, BOTH].tolist(), strict=True):
            weights[item] += layout.FADE**distance * share
    return weights


def short_lists(profile: UserProfile, seed: int) -> list[bytes]:
    """Lists of a few items each."""
    size = layout.PAIR.itemsize
    return [raw[: size * (seed % 7)] for raw in lists_of(profile, seed, 60)]


@given(HISTORIES, st.integers(0, 99))
def test_the_strongest_are_those_most_seen_together(events: list[int], seed: int) -> None:
    """Best first, with the sum of their faded shares; none where enough was seen together."""
    lists = short_lists(profile_of(history(*events), CLICKS), seed)
    expected = faded_shares(lists)

    items, weights = hop_sources(lists, NOW)

    if len(expected) >= MIN_FIRST_ORDER:
        assert not len(items)
        return
    assert len(items) == min(MAX_HOPS, len(expected))
    assert weights.tolist() == pytest.approx(sorted(expected.values(), reverse=True)[: len(items)])
    found = dict(zip(items.tolist(), weights.tolist(), strict=True))
    assert found == pytest.approx({item: expected[item] for item in found})


def test_a_full_list_is_enough() -> None:
    """That a list has enough items is seen by its length, and by counting them."""
    rows = np.zeros(MIN_FIRST_ORDER + 16, layout.PAIR)
    rows["item"][:MIN_FIRST_ORDER] = np.arange(1, MIN_FIRST_ORDER + 1)
    assert len(rows.tobytes()) == FULL_LIST_BYTES
    assert not len(hop_sources([rows.tobytes()], NOW)[0])
    assert not len(hop_sources([b"", rows[:-1].tobytes()], NOW)[0])
    assert len(hop_sources([b"", rows[: MIN_FIRST_ORDER - 1].tobytes()], NOW)[0]) == MAX_HOPS


@given(HISTORIES.filter(any), st.integers(0, 99))
def test_hops_are_weighed_by_how_strong_they_are(events: list[int], seed: int) -> None:
    """The signal sums the shares in the hops' lists, by the hops' weights; all are candidates."""
    profile = profile_of(history(*events), CLICKS)
    lists = short_lists(profile, seed)
    items, weights = hop_sources(lists, NOW)
    further = short_lists(profile_of(history(*items.tolist()), CLICKS), seed + 1)
    further += [b""] * (len(items) - len(further))
    expected: dict[int, float] = defaultdict(float)
    for weight, raw in zip(weights.tolist(), further, strict=True):
        for item, share in faded_shares([raw]).items():
            expected[item] += weight * share

    hops = SecondHops(items, weights, further)
    evidence = evidence_of(profile, lists, second_hops=hops)
    found = retrieve(profile, evidence, NOW)
    given_ = signals_of(found.items, profile, evidence, NOW)

    signals = dict(zip(found.items.tolist(), found.signals[:, HOP].tolist(), strict=True))
    reached = len({*faded_shares(lists), *expected})
    assert reached > 120 or expected.keys() <= signals.keys()
    assert signals == pytest.approx({item: expected.get(item, 0.0) for item in signals})
    assert np.array_equal(found.signals, given_.signals)
