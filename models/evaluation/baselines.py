"""What is compared in an evaluation: the recommender's own orders, and plain ones to beat."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from models.arrays import Floats, Indexes
from models.evaluation.protocol import Model, Scores
from models.ranking.features import FEATURES
from models.ranking.ranker import BASELINE
from models.serving.local import LocalRecommender
from models.serving.snapshots import RequestSnapshot
from models.state.interactions import Interaction
from models.state.layout import FADE, WINDOW

DAY_S = 86400.0


class SharedRecommender:
    """The recommender as in production, asked once for all its orders.

    Items are numbered as in the store, where numbers start at 1, so all events must come here.
    """

    def __init__(self, local: LocalRecommender) -> None:
        self.local = local
        self._asked: tuple[tuple[int, bytes], RequestSnapshot, Floats] | None = None

    def ask(self, user: int, at_s: float, barred: Indexes) -> tuple[RequestSnapshot, Floats]:
        """A user's situation at this time without barred items, and its candidates' features."""
        question = user, barred.tobytes()
        if self._asked is None or self._asked[0] != question:
            situation = self.local.situation(str(user), at_s=at_s, barred=barred + 1)
            self._asked = question, situation, self.local.features(situation)
        return self._asked[1:]

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Bring one event into effect; learn from it what the user chose among everything."""
        situation = None
        if self._asked and self._asked[0] == (user, b""):
            situation = self._asked[1]
        self.local.learn(str(user), str(item), event.type, at_s=event.at_s, situation=situation)
        self._asked = None

    def follow(self, user: int, item: int, event: Interaction) -> None:
        """Take one event into the user's context."""
        self.local.follow(str(user), str(item), at_s=event.at_s)
        self._asked = None


class RecommenderVariant:
    """One of the recommender's orders; the first of them teaches it."""

    def __init__(
        self, live: SharedRecommender, scores: Callable[[LocalRecommender, Floats], Floats]
    ) -> None:
        self._live = live
        self._scores = scores
        self.teaches = False

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:
        """The candidates in this order."""
        situation, matrix = self._live.ask(user, at_s, barred)
        return Scores(situation.candidates.items - 1, self._scores(self._live.local, matrix))

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Teach the recommender, if this is the order to do so."""
        if self.teaches:
            self._live.learn(user, item, event)

    def follow(self, user: int, item: int, event: Interaction) -> None:
        """Let it follow the user, if this is the order to do so."""
        if self.teaches:
            self._live.follow(user, item, event)


def _column(name: str, sign: float = 1.0) -> Callable[[LocalRecommender, Floats], Floats]:
    column = FEATURES.index(name)
    return lambda _, matrix: sign * matrix[:, column]


VARIANTS: dict[str, Callable[[LocalRecommender, Floats], Floats]] = {
    "user-personalization": lambda local, matrix: local.scores(matrix),
    "ranker": lambda local, matrix: local.ranker.scores(matrix),
    "blend": lambda _, matrix: BASELINE.scores(matrix),
    "similar-items": _column("both_10_share"),
}
"""What is served, the learned order whether served or not, and the unlearned ones."""


def variants(local: LocalRecommender, names: list[str]) -> dict[str, Model]:
    """The recommender's orders by these names; the last is taught the events on behalf of all."""
    live = SharedRecommender(local)
    made = {name: RecommenderVariant(live, VARIANTS[name]) for name in names}
    if made:
        made[names[-1]].teaches = True
    return dict(made)


class NonPersonalized:
    """A rival that looks at no context."""

    def follow(self, user: int, item: int, event: Interaction) -> None:
        """Nothing to take."""


class Popularity(NonPersonalized):
    """Items by their number of events, halved every half-life."""

    def __init__(self, half_life_s: float = np.inf) -> None:
        self._half_life_s = half_life_s
        self._counts = np.zeros(1024)
        self._at_s = np.zeros(1024)
        self._n = 0

    def _faded(self, at_s: float) -> Floats:
        ages_s = at_s - self._at_s[: self._n]
        faded: Floats = self._counts[: self._n] * np.exp2(-ages_s / self._half_life_s)
        return faded

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """All items, the most popular first for everybody."""
        return Scores(np.arange(self._n), self._faded(at_s))

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Count it."""
        if item >= len(self._counts):
            self._counts = np.append(self._counts, np.zeros(len(self._counts)))
            self._at_s = np.append(self._at_s, np.zeros(len(self._at_s)))
        self._n = max(self._n, item + 1)
        age_s = event.at_s - self._at_s[item]
        self._counts[item] = self._counts[item] * 2.0 ** (-age_s / self._half_life_s) + 1.0
        self._at_s[item] = event.at_s


class MostRecent(NonPersonalized):
    """Items by their last event."""

    def __init__(self) -> None:
        self._last = np.full(1024, -np.inf)
        self._n = 0

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """All items, the last touched first for everybody."""
        items = np.arange(len(self._last))
        return Scores(items, self._last)

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Take note of it; of two at one moment the later counts as later."""
        if item >= len(self._last):
            self._last = np.append(self._last, np.full(len(self._last), -np.inf))
        self._n += 1
        self._last[item] = self._n


class CoVisitation:
    """What was seen together within a window, both ways, what came before at half; never forgets.

    In plain dictionaries without bounds, as a check on what the stored lists lose by theirs.
    """

    def __init__(self) -> None:
        self._pairs: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._totals: dict[int, float] = defaultdict(float)
        self._pasts: dict[int, list[int]] = defaultdict(list)
        self._n = 0

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """All items that were seen together with the user's last ten."""
        scores = np.full(self._n, -np.inf)
        for distance, item in enumerate(self._pasts[user]):
            weight = FADE**distance / (self._totals[item] + 0.5)
            for other, count in self._pairs[item].items():
                scores[other] = max(scores[other], 0.0) + weight * count
        return Scores(np.arange(self._n), scores)

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Count the pairs with the items before, newest first."""
        self._n = max(self._n, item + 1)
        past = self._pasts[user]
        if past[:1] != [item]:
            for distance, other in enumerate(other for other in past if other != item):
                for one, two, weight in ((other, item, 1.0), (item, other, 0.5)):
                    self._pairs[one][two] += weight * FADE**distance
                    self._totals[one] += weight * FADE**distance
        self.follow(user, item, event)

    def follow(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Make it the newest of the user's last ten items."""
        past = self._pasts[user]
        if item in past:
            past.remove(item)
        past.insert(0, item)
        del past[WINDOW:]


class BiasedMatrix(NonPersonalized):
    """`river.reco.BiasedMF` on what was taken, and on one item drawn at random that was not."""

    def __init__(self, seed: int = 7) -> None:
        from river import reco  # noqa: PLC0415  a second to load

        self._model: Any = reco.BiasedMF(n_factors=10, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._n = 0

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """All items; milliseconds, for River predicts one at a time."""
        scores = [self._model.predict_one(user, item) for item in range(self._n)]
        return Scores(np.arange(self._n), np.array(scores, np.float64))

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """One step towards the item, one away from another."""
        self._n = max(self._n, item + 1)
        self._model.learn_one(user, item, y=1.0)
        self._model.learn_one(user, int(self._rng.integers(self._n)), y=0.0)


class ItemNeighbours:
    """`implicit`'s BM25 item neighbours, trained again every so many events: a batch system."""

    def __init__(self, every: int = 10_000) -> None:
        self._every = every
        self._users: list[int] = []
        self._items: list[int] = []
        self._pasts: dict[int, list[int]] = defaultdict(list)
        self._similar: Any = None

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """What resembles the user's last 50 items by the last training."""
        if self._similar is None:
            return Scores(np.empty(0, np.int64), np.empty(0))
        known = [item for item in self._pasts[user][-50:] if item < self._similar.shape[0]]
        scores = np.asarray(self._similar[known].sum(axis=0)).ravel()
        return Scores(np.arange(len(scores)), np.where(scores > 0, scores, -np.inf))

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Keep it, and train again when it is time."""
        self._users.append(user)
        self._items.append(item)
        self.follow(user, item, event)
        if len(self._items) % self._every == 0:
            self._train()

    def follow(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Add it to what the user has had."""
        self._pasts[user].append(item)

    def _train(self) -> None:
        from implicit.nearest_neighbours import BM25Recommender  # noqa: PLC0415  an optional extra
        from scipy.sparse import csr_matrix  # noqa: PLC0415

        counts = csr_matrix((np.ones(len(self._items)), (self._users, self._items)))
        model = BM25Recommender(K=100, num_threads=1)
        with warnings.catch_warnings():
            # It weighs the matrix into another format, and then warns of it.
            warnings.simplefilter("ignore")
            model.fit(counts, show_progress=False)
        self._similar = model.similarity.tocsr()


BASELINES: dict[str, Callable[[], Model]] = {
    "popularity": Popularity,
    "popularity-day": lambda: Popularity(DAY_S),
    "popularity-week": lambda: Popularity(7 * DAY_S),
    "most-recent": MostRecent,
    "co-visitation": CoVisitation,
    "biased-mf": BiasedMatrix,
    "item-neighbours": ItemNeighbours,
}
SLOW = frozenset({"biased-mf", "item-neighbours"})
"""Baselines that take milliseconds a query, or an optional extra: on request only."""
