"""Candidates: what a user may want next, out of what was seen together, own items and top lists.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numba import f4, f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert, slot_of, table_of
from models.machine_code import compiled
from models.retrieval.covisitation import (
    BOTH,
    DAY,
    MONTH,
    N_CHANNELS,
    concatenate,
    decay_offsets,
    decode_shares,
)
from models.retrieval.profile import UserProfile
from models.retrieval.second_hop import NO_SECOND_HOPS, SecondHops
from models.retrieval.user_neighbours import NO_NEIGHBOURS, NeighbourItems
from models.state import layout

SIGNALS = (
    "next_1", "after_1", "before_1", "day_1", "month_1",
    "both_10", "day_10", "month_10", "root_10", "moment", "alike", "hop",
)  # fmt: skip
"""Co-visitation of the last item by channel, then of the last 10 items together: sums of shares,
and of their roots, which count how many of the items agree; then of the items of the newest moment,
one like the other; what those hold who had several of the last 10 items too; and second hops."""

N_SIGNALS = len(SIGNALS)
BLENDED = tuple(SIGNALS.index(name) for name in ("both_10", "next_1", "day_1", "hop"))
BLEND_WEIGHTS = np.array([1.0, 0.5, 0.2, 0.02])
BOTH_10, DAY_10, MONTH_10, ROOT_10, MOMENT, ALIKE, HOP = range(N_CHANNELS, N_SIGNALS)
LEAST = 1e-300
"""Divides nothing by nothing."""

MOMENT_S = 300.0
"""Events so close to the user's newest are of one moment: their order says nothing."""

CO_VISITED = 120
"""Best co-visited items kept as candidates."""

TOPS_TAKEN = {"recent": 100, "week": 30, "new": 20}
"""Candidates from each top list. Those of other lists are among these, or are never right."""

MAX_REPEAT_ITEMS = 150
"""Distinct own items, newest first, that are candidates again."""

USER_KNN_FILL_WEIGHT = 1e-3
"""Weight of `alike` in the choice of candidates: it fills up where little was co-visited."""


class Candidates(msgspec.Struct, frozen=True, gc=False):
    """Items to choose from, with their co-visitation signals.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    signals
        ``(n, len(SIGNALS))``, 0 where an item was never seen with the context.
    """

    items: Indexes
    signals: Floats


NO_CANDIDATES = Candidates(NO_ITEMS, np.empty((0, N_SIGNALS)))


@compiled(
    Tuple((i8[::1], f8[:, ::1], i8[::1]))(
        u4[:, ::1], f4[:, ::1], i8[::1], f8[::1], f8[::1], i8[::1], f8[::1],
        u4[:, ::1], f4[:, ::1], i8[::1], f8[::1],
    )
)  # fmt: skip
def _summed(
    words: NDArray[np.uint32],
    logs: NDArray[np.float32],
    lengths: Indexes,
    times: Floats,
    lost: Floats,
    alike_items: Indexes,
    alike_weights: Floats,
    hop_words: NDArray[np.uint32],
    hop_logs: NDArray[np.float32],
    hop_lengths: Indexes,
    hop_weights: Floats,
) -> tuple[Indexes, Floats, Indexes]:
    """Every item in the lists, its signals, and a table of the items' places."""
    size = len(words) + len(alike_items) + len(hop_words)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    shares = np.empty((max(len(words), len(hop_words)), N_CHANNELS + 1))
    table, n, end = empty_table(size), 0, 0
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        used, total = decode_shares(words[start:end], logs[start:end], lost, shares)
        fade, root = layout.FADES[distance], math.sqrt(total)
        is_of_moment = times[0] - times[distance] <= MOMENT_S
        for at in range(used):
            place, n = insert(table, items, n, words[start + at, 0])
            if distance == 0:
                for channel in range(N_CHANNELS):
                    signals[place, channel] = shares[at, channel]
            signals[place, BOTH_10] += fade * shares[at, BOTH]
            signals[place, DAY_10] += fade * shares[at, DAY]
            signals[place, MONTH_10] += fade * shares[at, MONTH]
            signals[place, ROOT_10] += fade * math.sqrt(shares[at, BOTH])
            if is_of_moment:
                # The count by the root of the sum, as in a cosine; its other half is a feature's.
                signals[place, MOMENT] += root * shares[at, BOTH]
    for at in range(len(alike_items)):
        if alike_items[at] != 0:
            place, n = insert(table, items, n, alike_items[at])
            signals[place, ALIKE] += alike_weights[at]
    end = 0
    for hop in range(len(hop_lengths)):
        start, end = end, end + hop_lengths[hop]
        used, _ = decode_shares(hop_words[start:end], hop_logs[start:end], lost, shares)
        for at in range(used):
            place, n = insert(table, items, n, hop_words[start + at, 0])
            signals[place, HOP] += hop_weights[hop] * shares[at, BOTH]
    return items[:n], signals[:n], table


@compiled(f8[::1](f8[:, ::1]))
def blend(signals: Floats) -> Floats:
    """The score that needs no learning: co-visitation of the last ten, the next, the day; and hops.

    Each signal counts relative to its greatest value among the candidates.
    """
    greatest, scores = np.full(len(BLENDED), LEAST), np.zeros(len(signals))
    for at in range(len(signals)):
        for part in range(len(BLENDED)):
            greatest[part] = max(greatest[part], signals[at, BLENDED[part]])
    weights = BLEND_WEIGHTS / greatest
    for at in range(len(signals)):
        for part in range(len(BLENDED)):
            scores[at] += weights[part] * signals[at, BLENDED[part]]
    return scores


@compiled(i8[::1](f8[::1], i8, i8))
def best_places(scores: Floats, k: int, most: int) -> Indexes:
    """Places of the k best scores, and of more that equal the k-th best, up to `most` in all.

    They are in no order, for most callers put them in another; minus infinity is never among them.
    """
    least = -np.inf
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places, n = np.empty(min(most, len(scores)), np.int64), 0
    for better in (True, False):
        for place in range(len(scores)):
            wanted = scores[place] > least if better else scores[place] == least > -np.inf
            if wanted and n < len(places):
                places[n] = place
                n += 1
    return places[:n]


@compiled(
    Tuple((i8[::1], f8[:, ::1]))(
        i8[::1], i8[::1], i8, i8[::1], i8[::1], i8[::1], f8[:, ::1], i8[::1],
    )
)  # fmt: skip
def _gathered(
    places: Indexes,
    heads: Indexes,
    most_unseen: int,
    known: Indexes,
    barred: Indexes,
    seen: Indexes,
    seen_signals: Floats,
    seen_table: Indexes,
) -> tuple[Indexes, Floats]:
    """What stands at the places, then heads, then the first of the known; each once.

    With their signals, and without what is barred. Of heads that are neither seen nor known come
    only the first `most_unseen`.
    """
    own = known[:MAX_REPEAT_ITEMS]
    size = len(places) + len(heads) + len(own)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    table, n, out, mine = empty_table(size), 0, table_of(barred), table_of(known)
    for at in range(size):
        if at < len(places):
            place = places[at]
            item = seen[place]
        else:
            at_head = at - len(places)
            item = heads[at_head] if at_head < len(heads) else own[at_head - len(heads)]
            if out[slot_of(out, barred, item)] >= 0:
                continue
            # It may be co-visited without being among the best, and keeps its signals.
            place = seen_table[slot_of(seen_table, seen, item)]
        slot = slot_of(table, items, item)
        if table[slot] >= 0:
            continue
        if place < 0 and mine[slot_of(mine, known, item)] < 0:
            if most_unseen == 0:
                continue
            most_unseen -= 1
        table[slot], items[n] = n, item
        if place >= 0:
            for signal in range(N_SIGNALS):
                signals[n, signal] = seen_signals[place, signal]
        n += 1
    return items[:n], signals[:n]


@compiled(
    Tuple((i8[::1], f8[:, ::1]))(
        u4[:, ::1], f4[:, ::1], i8[::1], f8[::1], f8, i8[::1], f8[::1],
        u4[:, ::1], f4[:, ::1], i8[::1], f8[::1], i8[::1], i8, i8[::1], i8[::1],
    )
)  # fmt: skip
def _retrieved(
    words: NDArray[np.uint32],
    logs: NDArray[np.float32],
    lengths: Indexes,
    times: Floats,
    clock_s: float,
    alike_items: Indexes,
    alike_weights: Floats,
    hop_words: NDArray[np.uint32],
    hop_logs: NDArray[np.float32],
    hop_lengths: Indexes,
    hop_weights: Floats,
    heads: Indexes,
    most_unseen: int,
    known: Indexes,
    barred: Indexes,
) -> tuple[Indexes, Floats]:
    """`retrieve` as one piece of machine code: each call from Python takes microseconds."""
    lost = (clock_s - layout.EPOCH) * layout.PAIR_RATES
    items, signals, table = _summed(
        words, logs, lengths, times, lost, alike_items, alike_weights,
        hop_words, hop_logs, hop_lengths, hop_weights,
    )  # fmt: skip
    scores = blend(signals)
    if len(alike_items):
        filling = USER_KNN_FILL_WEIGHT / max(signals[:, ALIKE].max(), LEAST)
        for at in range(len(scores)):
            scores[at] += filling * signals[at, ALIKE]
    for item in barred:
        place = table[slot_of(table, items, item)]
        if place >= 0:
            scores[place] = -np.inf
    best = best_places(scores, CO_VISITED, CO_VISITED)
    return _gathered(best, heads, most_unseen, known, barred, items, signals, table)


def top_list_candidates(
    tops: Mapping[str, Indexes], taken: Mapping[str, int] = TOPS_TAKEN
) -> Indexes:
    """The first items of each top list, best first, one list after another."""
    return np.concatenate(
        [NO_ITEMS, *(tops[name][:n] for name, n in taken.items() if name in tops)]
    )


def retrieve(
    context: UserProfile,
    lists: Sequence[bytes],
    heads: Indexes,
    clock_s: float,
    barred: Indexes = NO_ITEMS,
    others: NeighbourItems = NO_NEIGHBOURS,
    hops: SecondHops = NO_SECOND_HOPS,
    most_unseen: int | None = None,
) -> Candidates:
    """The best co-visited items, and the heads of the top lists, and own items; each once.

    Parameters
    ----------
    lists
        What the store holds as neighbours of `context.recent`, in that order.
    heads
        As of `top_list_candidates`.
    clock_s
        Time of the newest event, Unix seconds.
    barred
        Items that are no candidates: they take no other's place.
    others
        As of `alike`.
    hops
        Where `strongest` says that it should be looked further.
    most_unseen
        How many heads may come that are neither co-visited nor in the history; the first ones.

    Returns
    -------
    Candidates
        At most `CO_VISITED` + `MAX_REPEAT_ITEMS` items, beside the heads.
    """
    further, logs, lengths = concatenate(hops.lists)
    most = len(heads) if most_unseen is None else most_unseen
    return Candidates(
        *_retrieved(
            *concatenate(lists), context.times, clock_s, others.items, others.weights,
            further, logs, lengths, hops.weights, heads, most, context.items, barred,
        )
    )  # fmt: skip


def signals_of(
    items: Indexes,
    context: UserProfile,
    lists: Sequence[bytes],
    clock_s: float,
    others: NeighbourItems = NO_NEIGHBOURS,
    hops: SecondHops = NO_SECOND_HOPS,
) -> Candidates:
    """The given items as candidates, in their order, with what the context says of them."""
    seen = _summed(
        *concatenate(lists), context.times, decay_offsets(clock_s), others.items, others.weights,
        *concatenate(hops.lists), hops.weights,
    )  # fmt: skip
    return Candidates(*_gathered(NO_ITEMS, items, len(items), NO_ITEMS, NO_ITEMS, *seen))
