"""Candidates, co-visitation, profiles and user k-NN against plain definitions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, slot_of
from models.retrieval.candidates import (
    MAX_CO_VISITED,
    MAX_OF_PROFILE,
    MAX_REPEAT_ITEMS,
    TOP_LIST_SIZES,
    Candidates,
    Evidence,
    best_places,
    retrieve,
    signals_of,
    top_list_candidates,
)
from models.retrieval.covisitation import (
    AFTER,
    BEFORE,
    BOTH,
    DAY,
    MONTH,
    N_CHANNELS,
    NO_SECOND_HOPS,
    concatenate,
    decay_offsets,
    unpack_neighbours,
)
from models.retrieval.profile import MOMENT_S, UserProfile, profile_of
from models.retrieval.signals import (
    ALIKE,
    PROFILE_FADE,
    PROFILE_ITEMS,
    SIGNALS,
    blend,
    summed_signals,
)
from models.retrieval.user_neighbours import (
    MAX_NEIGHBOURS,
    NO_NEIGHBOURS,
    nearest_users,
    neighbour_items,
)
from models.state import layout
from models.state.histories import History, merge_histories, unpack_history
from tests.models.state.packed_histories import PackedEvent, pack_history
from tests.models.state.pair_records import PairCodes, pack_pairs, unpack_pairs
from tests.models.state.reference import NOW

pytestmark = pytest.mark.unit

CLICKS = np.zeros(256, np.bool_)
"""No event type weighs more than a click."""

HISTORIES = st.lists(st.integers(0, 400), max_size=100)


def history(*items: int) -> History:
    """A history of clicks a minute apart."""
    n = len(items)
    times = np.arange(n, dtype=np.int64) * 60 + NOW
    return History(n, 1.0, np.array(items, np.int64), times, np.ones(n, np.uint8))


def evidence_of(
    profile: UserProfile, lists: Sequence[bytes], listed: Indexes = NO_ITEMS, **more: Any
) -> Evidence:
    """Evidence of the co-visitation lists, listed items and the profile's own items."""
    recent, older = lists[: layout.WINDOW], lists[layout.WINDOW :]
    own = profile.items
    return Evidence(recent, older_lists=older, own_items=own, listed_items=listed, **more)


def co_visited(profile: UserProfile, lists: Sequence[bytes], clock_s: float) -> Candidates:
    """All items of the lists, the best and all others."""
    none, nowhere = concatenate(NO_SECOND_HOPS.lists)
    summed = summed_signals(
        *concatenate(lists), len(lists[: layout.WINDOW]), profile.times, decay_offsets(clock_s),
        NO_NEIGHBOURS.items, NO_NEIGHBOURS.weights,
        none, nowhere, NO_SECOND_HOPS.weights,
        NO_NEIGHBOURS.items, NO_NEIGHBOURS.weights, NO_NEIGHBOURS.items, NO_NEIGHBOURS.weights,
    )  # fmt: skip
    return Candidates(*summed[:2])


def lists_of(profile: UserProfile, seed: int, n_items: int) -> list[bytes]:
    """Random stored neighbour lists of the profile's items, some empty, with unused records."""
    rng = np.random.default_rng(seed)
    lists = []
    for _ in profile.items[:PROFILE_ITEMS]:
        size = 0 if rng.random() < 0.2 else min(n_items - 1, layout.NEIGHBOURS - 3)
        items = rng.choice(np.arange(1, n_items), size, replace=False).tolist()
        shares = [layout.SHARE_CODES] * 2
        codes = rng.integers([1, 1, 0, 0, 0], [600, 600, 200, *shares], (size, 5))
        pairs = [PairCodes(item, *own) for item, own in zip(items, codes.tolist(), strict=True)]
        lists.append(pack_pairs(pairs, NOW - 20 * layout.DAY_S, room=3) if size else b"")
    return lists


@given(HISTORIES, st.integers(0, 99))
def test_candidates_are_bounded_and_distinct(events: list[int], seed: int) -> None:
    """No candidate twice, none unknown, and not more than the bounds of the sources."""
    profile = profile_of(history(*events), CLICKS)
    top_items = top_list_candidates({name: np.arange(1, 301) * 3 for name in TOP_LIST_SIZES})
    lists = lists_of(profile, seed, 900)

    candidates = retrieve(profile, evidence_of(profile, lists, top_items), NOW)

    items = candidates.items.tolist()
    assert len(set(items)) == len(items)
    most = MAX_CO_VISITED + MAX_OF_PROFILE + MAX_REPEAT_ITEMS
    assert len(items) <= most + sum(TOP_LIST_SIZES.values())
    assert min(items) > 0
    assert (candidates.signals >= 0).all()
    again = retrieve(profile, evidence_of(profile, lists, top_items), NOW)
    assert np.array_equal(again.items, candidates.items)
    assert np.array_equal(again.signals, candidates.signals)


def decayed_counts(raw: bytes, clock_s: float) -> tuple[list[int], Floats]:
    """Items of a stored list, and ``(n, 5)`` their counts by channel at a time."""
    pairs = unpack_pairs(raw) if raw else {}
    ages = [(clock_s - layout.EPOCH) / channel.half_life_s for channel in layout.PAIR_CHANNELS]
    names = [channel.name for channel in layout.PAIR_CHANNELS]
    logs = [[own[name] for name in names] for own in pairs.values()]
    return list(pairs), np.exp2(np.array(logs).reshape(-1, N_CHANNELS) - ages)


def naive_signals(profile: UserProfile, lists: Sequence[bytes]) -> dict[int, list[float]]:
    """Each co-visited item's signals, by their definitions."""
    signals: dict[int, list[float]] = defaultdict(lambda: [0.0] * len(SIGNALS))
    for distance, raw in enumerate(lists):
        items, counts = decayed_counts(raw, NOW)
        shares = counts / (counts.sum(axis=0) + 0.5)
        both = counts[:, AFTER] + 0.5 * counts[:, BEFORE]
        lift = both / np.sqrt(both.sum() + 0.5)
        strong = np.flatnonzero(both * len(items) >= both.sum() + 0.5)
        both /= both.sum() + 0.5
        fade, profile_fade = layout.FADE**distance, PROFILE_FADE**distance
        for row, item in enumerate(items):
            if distance >= layout.WINDOW and item not in signals and row not in strong:
                continue
            own = signals[item]
            own[SIGNALS.index("profile")] += profile_fade * lift[row]
            if distance >= layout.WINDOW:
                continue
            if distance == 0:
                own[:N_CHANNELS] = shares[row]
            own[SIGNALS.index("both_10")] += fade * both[row]
            own[SIGNALS.index("day_10")] += fade * shares[row, DAY]
            own[SIGNALS.index("month_10")] += fade * shares[row, MONTH]
            own[SIGNALS.index("root_10")] += fade * np.sqrt(both[row])
            if profile.times[0] - profile.times[distance] <= MOMENT_S:
                own[SIGNALS.index("moment")] += lift[row]
    return signals


@settings(max_examples=30)
@given(HISTORIES, st.integers(0, 99), st.integers(2, 60))
def test_signals_follow_their_definitions(events: list[int], seed: int, n_items: int) -> None:
    """Co-visited, given and retrieved items have the signals of a plain loop."""
    profile = profile_of(history(*events), CLICKS)
    lists = lists_of(profile, seed, n_items)
    naive = naive_signals(profile, lists)
    asked = np.arange(1, 2 * n_items, dtype=np.int64)

    found = {
        "all": co_visited(profile, lists, NOW),
        "given": signals_of(asked, profile, evidence_of(profile, lists), NOW),
        "best": retrieve(profile, evidence_of(profile, lists, asked), NOW),
    }

    assert set(found["all"].items.tolist()) == naive.keys()
    assert found["given"].items.tolist() == asked.tolist()
    assert set(asked.tolist()) <= set(found["best"].items.tolist())
    for name, candidates in found.items():
        for item, signals in zip(candidates.items.tolist(), candidates.signals, strict=True):
            expected = naive[item] if item in naive else [0.0] * len(SIGNALS)
            assert np.allclose(signals, expected, rtol=1e-6, atol=0), (name, item)


def test_the_best_co_visited_items_are_candidates() -> None:
    """The blend chooses the co-visited candidates; listed items keep their signals."""
    profile = profile_of(history(*range(1, 11)), CLICKS)
    lists = lists_of(profile, 5, 900)
    everything = co_visited(profile, lists, NOW)
    order = np.argsort(-blend(everything.signals))

    best, worst = order[:MAX_CO_VISITED], order[-20:]
    found = retrieve(profile, evidence_of(profile, lists, everything.items[worst]), NOW)
    signals = dict(zip(found.items.tolist(), found.signals.tolist(), strict=True))

    expected = everything.items[[*best, *worst]].tolist()
    assert signals.keys() == {*expected, *range(1, 11)}
    for item, own in zip(everything.items.tolist(), everything.signals.tolist(), strict=True):
        assert signals.get(item, own) == own


@given(HISTORIES, st.integers(0, 99), st.sets(st.integers(1, 900), max_size=300))
def test_barred_items_take_no_other_items_place(
    events: list[int], seed: int, barred: set[int]
) -> None:
    """They are no candidates; other items fill their places."""
    profile = profile_of(history(*events), CLICKS)
    lists = lists_of(profile, seed, 900)

    evidence = evidence_of(profile, lists, np.arange(1, 50))
    found = retrieve(profile, evidence, NOW, np.array(sorted(barred), np.int64))

    items = set(found.items.tolist())
    assert not items & barred
    seen = set(co_visited(profile, lists, NOW).items.tolist()) - barred
    assert len(items & seen) >= min(MAX_CO_VISITED, len(seen))


def test_blend_is_relative_to_the_greatest() -> None:
    """Three signals count, each as a share of its greatest; nothing gives nothing."""
    signals = np.zeros((3, len(SIGNALS)))
    signals[:, SIGNALS.index("both_10")] = [2.0, 4.0, 0.0]
    signals[:, SIGNALS.index("day_1")] = [0.0, 0.0, 1e-9]
    signals[:, SIGNALS.index("month_1")] = 7.0

    assert blend(signals).tolist() == pytest.approx([0.5, 1.0, 0.2])
    assert blend(np.zeros((2, len(SIGNALS)))).tolist() == [0.0, 0.0]
    assert blend(np.zeros((0, len(SIGNALS)))).tolist() == []


@given(st.lists(st.integers(1, 2**32 - 1), max_size=300, unique=True))
def test_a_table_finds_what_is_in_it(items: list[int]) -> None:
    """Every item is found at its place, and nothing else is; also where all hash alike."""
    for known in (items, [item * 2**24 for item in items]):
        array, table = np.array(known, np.int64), empty_table(len(known))
        for place, item in enumerate(known):
            table[slot_of(table, array, item)] = place

        found = [int(table[slot_of(table, array, item)]) for item in known]

        assert found == list(range(len(known)))
        assert table[slot_of(table, array, -1)] == -1


SCORES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(-np.inf)), max_size=60)


@given(SCORES, st.integers(1, 40), st.integers(0, 20))
def test_best_places_are_those_of_a_sort(scores: list[float], k: int, more: int) -> None:
    """The k best, and ties with the last of them up to the limit."""
    places = best_places(np.array(scores), k, k + more)

    found = [scores[place] for place in places]
    finite = sorted((score for score in scores if score > -np.inf), reverse=True)
    with_equals = [score for score in finite if k > len(finite) or score >= finite[k - 1]]
    assert len(set(places.tolist())) == len(places)
    assert sorted(found, reverse=True) == with_equals[: k + more]


@given(HISTORIES)
def test_profile_is_the_history_distilled(events: list[int]) -> None:
    """Distinct known items, newest first, with counts, times and positions."""
    profile = profile_of(history(*events), CLICKS)
    known = [item for item in reversed(events) if item]

    assert profile.items.tolist() == list(dict.fromkeys(known))
    assert profile.recent.tolist() == profile.items.tolist()[: layout.WINDOW]
    assert profile.counts.tolist() == [known.count(item) for item in profile.items]
    assert profile.positions.tolist() == [known.index(item) + 1 for item in profile.items]
    last = {item: NOW + 60.0 * n for n, item in enumerate(events)}
    assert profile.times.tolist() == [last[item] for item in profile.items]
    assert profile.length == len(known)


def test_frequencies_count_moments_and_fade() -> None:
    """An item counts once in each of the user's moments, and older moments count less."""
    times = np.array([0, 10, 20, 1000, 1001, 1301, 5000], np.int64)
    baskets = History(
        7, 1.0, np.array([1, 1, 2, 1, 3, 3, 2], np.int64), times, np.zeros(7, np.uint8)
    )

    profile = profile_of(baskets, CLICKS)

    assert profile.items.tolist() == [2, 3, 1]
    assert profile.frequencies == pytest.approx([1 + 0.95**2, 0.95, 0.95 + 0.95**2])


def test_strong_is_the_last_event() -> None:
    """An item is strong if its newest event is of a strong type."""
    two = History(
        3,
        1.0,
        np.array([1, 2, 1], np.int64),
        np.array([1, 2, 3], np.int64),
        np.array([1, 9, 9], np.uint8),
    )

    assert profile_of(two, np.arange(256) == 9).strong.tolist() == [1, 1]
    assert profile_of(two, np.arange(256) == 1).strong.tolist() == [0, 0]


def test_lists_are_unpacked_as_shares() -> None:
    """Each count is divided by the list's sum plus a half; without events it is 0."""
    clock_s = layout.EPOCH + 86400.0
    pairs = [PairCodes(3, 40, 30, 20, 9, 4), PairCodes(2**24 - 1, 1, 1, 0, 63, 0)]
    raw = pack_pairs(pairs, clock_s, room=5)

    neighbours, none = unpack_neighbours(raw, clock_s), unpack_neighbours(b"", clock_s)

    assert (neighbours.items.tolist(), none.items.tolist()) == ([3, 2**24 - 1], [])
    _, counts = decayed_counts(raw, clock_s)
    both = counts[:, AFTER] + 0.5 * counts[:, BEFORE]
    counts = np.column_stack([counts, both])
    assert neighbours.shares == pytest.approx(counts / (counts.sum(axis=0) + 0.5), rel=1e-9)
    assert neighbours.shares[1, [0, BEFORE, DAY]].tolist() == [0.0, 0.0, 0.0]


PAIRS = st.builds(
    PairCodes,
    st.integers(1, layout.MAX_ITEM_INDEX),
    st.integers(1, layout.BOTH_COUNT.codes - 1),
    st.integers(1, layout.MONTH_COUNT.codes - 1),
    st.integers(0, layout.DAY_COUNT.codes - 1),
    st.integers(0, layout.SHARE_CODES - 1),
    st.integers(0, layout.SHARE_CODES - 1),
)


@given(st.floats(0, 2**32), st.floats(0, 2**32), st.lists(PAIRS, min_size=1, max_size=20))
def test_shares_are_finite_at_any_clock(
    clock_s: float, list_s: float, pairs: list[PairCodes]
) -> None:
    """A clock far behind or ahead of the list gives finite shares that sum to at most 1."""
    neighbours = unpack_neighbours(pack_pairs(pairs, list_s), clock_s)

    assert neighbours.items.tolist() == [pair.item for pair in pairs]
    assert np.isfinite(neighbours.shares).all()
    assert (neighbours.shares >= 0).all()
    assert (neighbours.shares[:, :N_CHANNELS].sum(axis=0) <= 1 + 1e-9).all()


@given(PAIRS, PAIRS)
def test_a_greater_code_is_a_greater_share(one: PairCodes, other: PairCodes) -> None:
    """Of two pairs of a list, the order of each count's codes is that of its shares."""
    shares = unpack_neighbours(pack_pairs([one, other], NOW), NOW).shares

    for code, channel in (("both", BOTH), ("month", MONTH), ("day", DAY)):
        codes = getattr(one, code) - getattr(other, code)
        assert np.sign(shares[0, channel] - shares[1, channel]) == np.sign(codes)


def test_histories_merge_by_time() -> None:
    """Two histories in one, oldest first; an empty one adds nothing."""
    one, other, none = history(1, 2), history(3, 4), unpack_history(None)
    other.times[:] = [NOW - 1, NOW + 30]

    merged = merge_histories(one, other)

    assert merged.items.tolist() == [3, 1, 4, 2]
    assert (merged.count, merged.accepted_at) == (4, 1.0)
    assert merge_histories(one, none) is one
    assert merge_histories(none, one) is one


@given(
    st.lists(st.lists(st.integers(1, 30), max_size=40), min_size=1, max_size=10),
    st.sets(st.integers(1, 30), max_size=3),
)
def test_nearest_users_share_most_recent_items(rings: list[list[int]], own: set[int]) -> None:
    """Each item counts once for an owner, newer items more; own histories are left out."""
    expected: dict[int, float] = defaultdict(float)
    for distance, ring in enumerate(rings):
        for owner in set(ring) - own:
            expected[owner] += layout.FADE**distance

    stored = [np.array(ring, np.uint32).tobytes() for ring in rings]
    owners, weights = nearest_users(stored, sorted(own))

    assert dict(zip(owners.tolist(), weights.tolist(), strict=True)) == pytest.approx(expected)
    assert weights.tolist() == sorted(weights.tolist(), reverse=True)


def test_nearest_users_are_bounded_and_the_newest_of_ties() -> None:
    """Of many owners of an item the newest count, and not more than are stored."""
    ring = np.arange(1, 2 * layout.RECENT_OWNERS + 1, dtype=np.uint32)

    owners, _ = nearest_users([ring.tobytes()], ())

    assert owners.tolist() == ring[::-1][:MAX_NEIGHBOURS].tolist()


def test_items_of_neighbours_have_a_signal() -> None:
    """Items of the nearest users are candidates; each event of a long history counts less."""
    long = pack_history([PackedEvent(item, NOW) for item in (5, 5, 6, 0)])
    short = pack_history([PackedEvent(6, NOW)])

    held = neighbour_items([long, None, short], np.array([1.0, 9.0, 0.5]))
    profile = profile_of(history(1), CLICKS)
    found = retrieve(profile, evidence_of(profile, [b""], user_knn=held), NOW)

    signals = dict(zip(found.items.tolist(), found.signals[:, ALIKE].tolist(), strict=True))
    assert signals == pytest.approx({5: 1.0, 6: 1.0, 1: 0.0})
