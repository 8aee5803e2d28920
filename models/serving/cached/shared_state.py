"""State that all requests of a group share, as `models.serving.cached.cache` reads it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.ranking.challengers import (
    ChallengerRanker,
    Context,
    ReadyChallengers,
    RunningChallenger,
)
from models.ranking.champions import OBJECTIVES, Objective, RankerChoice
from models.ranking.ranker import RANKERS, ListwiseRanker, Ranker
from models.retrieval.candidates import Candidates
from models.retrieval.item_factors import NO_FACTORS, ItemFactors
from models.serving.cached.silence import Silence
from models.state.timed_cache import NEVER

NONE_HIDDEN = np.zeros(0, np.bool_)
NO_PRODUCTS = np.zeros(0)


def by_type_code() -> NDArray[np.bool_]:
    """``(256,)`` of what is true of no type code."""
    return np.zeros(256, np.bool_)


def type_codes(names: Mapping[int, str], wanted: Collection[str]) -> NDArray[np.bool_]:
    """``(256,)`` whether a type code is that of one of the event types."""
    table = by_type_code()
    table[[code for code, name in names.items() if name.lower() in wanted]] = True
    return table


@dataclass(frozen=True)
class SharedState:
    """State that all requests of a group share.

    Attributes
    ----------
    clock_s, accepted_at
        Time of the newest event, and when it was accepted, Unix seconds.
    top_lists, top_candidates
        Item indexes of each top list, best first; and candidates from them.
    max_log_popularity
        ``(5,)`` as in `features_of`.
    event_types, purchase_types, strong_types
        Name of each type code; ``(256,)`` whether events of a type code are purchases, and whether
        they weigh more than a click.
    rankers, champions
        By objective, the learned ranker and the name of the built-in ranker to serve.
    challengers
        By objective, the challenger that serves in place of that one, if it is ready here.
    ready_challengers
        By objective and name, all that may be chosen for an answer here.
    trial_counts
        By item, how often it was shown in an exploration slot.
    hidden
        True at the index of each item that is hidden or has expired; top lists and candidates are
        without them.
    products
        Number of the product that each item is a variant of, by index; empty while none is.
    factors
        Factors of the items, as they were last learned.
    silence
        A long silence that the group has come out of; statistics are as if it had taken no time.
    read_at
        When all this was read, Unix seconds.
    """

    clock_s: float = 0.0
    accepted_at: float = 0.0
    top_lists: dict[str, Indexes] = field(default_factory=dict)
    top_candidates: Indexes = field(default_factory=lambda: NO_ITEMS)
    max_log_popularity: Floats = field(default_factory=lambda: np.zeros(5))
    event_types: dict[int, str] = field(default_factory=dict)
    purchase_types: NDArray[np.bool_] = field(default_factory=by_type_code)
    strong_types: NDArray[np.bool_] = field(default_factory=by_type_code)
    rankers: dict[Objective, ListwiseRanker] = field(
        default_factory=lambda: {name: ListwiseRanker() for name in OBJECTIVES}
    )
    champions: dict[Objective, str] = field(
        default_factory=lambda: dict.fromkeys(OBJECTIVES, "blend")
    )
    challengers: Mapping[Objective, RunningChallenger] = field(default_factory=dict)
    ready_challengers: ReadyChallengers = field(default_factory=dict)
    trial_counts: dict[int, int] = field(default_factory=dict)
    hidden: NDArray[np.bool_] = field(default_factory=lambda: NONE_HIDDEN)
    products: Floats = field(default_factory=lambda: NO_PRODUCTS)
    factors: ItemFactors = NO_FACTORS
    silence: Silence | None = None
    read_at: float = NEVER

    def champion(self, objective: Objective, context: Context | None = None) -> Ranker:
        """The ranker to serve: a challenger, or the built-in one; `context` of its matrices."""
        built_in = self.built_in(objective)
        challenger = self.challengers.get(objective)
        return built_in if challenger is None else ChallengerRanker(challenger, built_in, context)

    def serving(self, objective: Objective) -> str:
        """Name of the ranker to serve."""
        challenger = self.challengers.get(objective)
        return self.champions[objective] if challenger is None else challenger.name

    def built_in(self, objective: Objective) -> Ranker:
        """The built-in ranker to serve; the learned one for a name that is not registered here.

        It chooses which of the top lists' items are candidates, whoever orders the candidates.
        """
        learned = self.rankers[objective]
        ranker_of = RANKERS.get(self.champions[objective])
        return learned if ranker_of is None else ranker_of(learned)

    def ranked_by(self, choice: RankerChoice | None) -> SharedState:
        """The same with another ranker to serve; itself without a choice.

        The built-in champion where a challenger is chosen that is not ready here.

        >>> SharedState().ranked_by("ranker").serving("purchases")
        'ranker'
        """
        if choice is None:
            return self
        champions, challengers = self.champions, dict[Objective, RunningChallenger]()
        if choice in RANKERS:
            champions = dict.fromkeys(OBJECTIVES, choice)
        else:
            for objective, ready in self.ready_challengers.items():
                if choice in ready:
                    challengers[objective] = ready[choice]
        return replace(self, champions=champions, challengers=challengers)

    def shown(self, items: Indexes) -> Indexes:
        """The items that are not hidden, in their order; the same array while none is."""
        return items if not len(self.hidden) else items[~is_marked(self.hidden, items)]

    @property
    def has_variants(self) -> bool:
        """True if an item is a variant of a product."""
        return len(self.products) > 0

    def products_of(self, items: Indexes) -> Floats:
        """``(n,)`` the product that each item is a variant of; 0 for none, and for no item."""
        found = np.zeros(len(items))
        within = (items > 0) & (items < len(self.products))
        found[within] = self.products[items[within]]
        return found

    def one_of_a_product(self, items: Indexes, scores: Floats) -> tuple[Indexes, Floats]:
        """Items and scores without all variants of a product but the best; as given without any."""
        products = self.products_of(items) if len(self.products) else NO_PRODUCTS
        if not products.any():
            return items, scores
        order = np.lexsort((items, -scores))
        kept = np.sort(order[first_of_each(products[order])])
        return items[kept], scores[kept]

    def shown_ids(self, item_ids: Sequence[str], indexes: Sequence[int]) -> list[str]:
        """The ids of items that are not hidden; an unknown one has the index 0."""
        hidden = is_marked(self.hidden, np.array(indexes, np.int64))
        return list(itertools.compress(item_ids, ~hidden))

    def shown_candidates(self, candidates: Candidates) -> Candidates:
        """The candidates that are not hidden; the same ones while none is."""
        if not len(self.hidden):
            return candidates
        is_shown = ~is_marked(self.hidden, candidates.items)
        return Candidates(candidates.items[is_shown], candidates.signals[is_shown])


def first_of_each(products: Floats) -> Indexes:
    """Places of the first item of each product, and of all items of none, in their order.

    >>> first_of_each(np.array([0.0, 7.0, 7.0, 0.0, 8.0, 7.0])).tolist()
    [0, 1, 3, 4]
    """
    _, first = np.unique(products, return_index=True)
    is_kept = products == 0
    is_kept[first] = True
    return np.flatnonzero(is_kept)


def is_marked(hidden: NDArray[np.bool_], items: Indexes) -> NDArray[np.bool_]:
    """``(n,)`` whether each item is hidden; one behind the end of the marks is not.

    >>> is_marked(np.array([False, True]), np.array([1, 0, 7])).tolist()
    [True, False, False]
    """
    found = np.zeros(len(items), np.bool_)
    within = items < len(hidden)
    found[within] = hidden[items[within]]
    return found


def shown_tops(tops: dict[str, Indexes], hidden: NDArray[np.bool_]) -> dict[str, Indexes]:
    """The top lists without hidden items."""
    if not len(hidden):
        return tops
    return {name: items[~is_marked(hidden, items)] for name, items in tops.items()}
