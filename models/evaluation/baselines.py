"""Compared models: the recommender's own orders, and simple baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from models.arrays import Floats, Indexes
from models.evaluation.basket_methods import OwnFrequency, TifuKnn
from models.evaluation.batch_methods import Ease, ItemNeighbours, MatrixFactors
from models.evaluation.protocol import Model, Scores
from models.evaluation.session_methods import Stan, VmisKnn, Vsknn
from models.ranking.challengers import Context, challenger_factories
from models.ranking.features import FEATURES
from models.ranking.ranker import RANKERS
from models.serving.local import LocalRecommender, SnapshotCandidates
from models.settings import Settings
from models.state.layout import FADE, WINDOW
from models.state.users.interactions import Interaction

DAY_S = 86400.0

Order = Callable[[LocalRecommender, Floats, Context], Floats]
"""Scores of candidates with these features."""


class SharedRecommender:
    """The recommender as in production, read once for all its orders.

    Items have the store's numbers less one, so all events of the store must come through here.
    """

    def __init__(self, local: LocalRecommender) -> None:
        self.local = local
        self._read: tuple[tuple[int, bytes], SnapshotCandidates, Floats] | None = None

    def candidates(
        self, user: int, at_s: float, barred: Indexes
    ) -> tuple[SnapshotCandidates, Floats]:
        """A user's candidates at this time without barred items, and their features."""
        query = user, barred.tobytes()
        if self._read is None or self._read[0] != query:
            found = self.local.candidates(str(user), at_s=at_s, barred=barred + 1)
            self._read = query, found, self.local.features(found)
        return self._read[1:]

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Bring one event into effect, and train on it with candidates without barred items."""
        found = None
        if self._read and self._read[0] == (user, b""):
            found = self._read[1]
        self.local.learn(str(user), str(item), event.type, at_s=event.at_s, found=found)
        self._read = None

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Add one event to the user's history."""
        self.local.observe(str(user), str(item), at_s=event.at_s)
        self._read = None


class RecommenderVariant:
    """One of the recommender's orders; one of them teaches it."""

    def __init__(self, live: SharedRecommender, scores: Order) -> None:
        self._live = live
        self._scores = scores
        self.teaches = False

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:
        """Scores of the candidates in this order."""
        found, matrix = self._live.candidates(user, at_s, barred)
        items = found.candidates.items
        context = Context(items, found.snapshot.profile.last_item)
        return Scores(items - 1, self._scores(self._live.local, matrix, context))

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Teach the recommender, if this order teaches."""
        if self.teaches:
            self._live.learn(user, item, event)

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Add the event to the user's history, if this order teaches."""
        if self.teaches:
            self._live.observe(user, item, event)


def _column(name: str) -> Order:
    column = FEATURES.index(name)
    return lambda _local, matrix, _context: matrix[:, column]


def _ranker(name: str) -> Order:
    return lambda local, matrix, _context: RANKERS[name](local.ranker).scores(matrix)


def _challenger(name: str) -> Order:
    return lambda local, matrix, context: local.challenger_scores(name, matrix, context)


VARIANTS: dict[str, Order] = {
    "user-personalization": lambda local, matrix, context: local.scores(matrix, context=context),
    **{name: _ranker(name) for name in RANKERS if name != "ranker-alone"},
    "similar-items": _column("both_10_share"),
}
"""The champion; the rankers, whether they serve or not; and co-visitation alone."""


def own_orders(settings: Settings) -> dict[str, Order]:
    """`VARIANTS`, and the challengers of the settings."""
    return VARIANTS | {
        name: _challenger(name) for name in challenger_factories(settings.challengers)
    }


def variants(live: SharedRecommender, names: list[str]) -> dict[str, Model]:
    """The recommender's orders by these names; the last one teaches it on behalf of all."""
    orders = own_orders(live.local.settings)
    made = {name: RecommenderVariant(live, orders[name]) for name in names}
    if made:
        made[names[-1]].teaches = True
    return dict(made)


class NonPersonalized:
    """A model that ignores histories."""

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Do nothing."""


class Popularity(NonPersonalized):
    """Items by their number of events, decayed by a half-life."""

    def __init__(self, half_life_s: float = np.inf) -> None:
        self._half_life_s = half_life_s
        self._counts = np.zeros(1024)
        self._at_s = np.zeros(1024)
        self._n = 0

    def _decayed(self, at_s: float) -> Floats:
        ages_s = at_s - self._at_s[: self._n]
        decayed: Floats = self._counts[: self._n] * np.exp2(-ages_s / self._half_life_s)
        return decayed

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of all items: the decayed counts."""
        return Scores(np.arange(self._n), self._decayed(at_s))

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Count the event."""
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
        """Scores of all items: the order of their last events."""
        items = np.arange(len(self._last))
        return Scores(items, self._last)

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Make the item the newest; of two events at one time, the one learned later is newer."""
        if item >= len(self._last):
            self._last = np.append(self._last, np.full(len(self._last), -np.inf))
        self._n += 1
        self._last[item] = self._n


class CoVisitationBaseline:
    """Co-visitation within a window, in both directions, the item before at half; never decays.

    In unbounded dictionaries, as a check on the loss by the bounds of stored lists.
    """

    def __init__(self) -> None:
        self._pairs: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._totals: dict[int, float] = defaultdict(float)
        self._pasts: dict[int, list[int]] = defaultdict(list)
        self._n = 0

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of the items co-visited with the user's last ten."""
        scores = np.full(self._n, -np.inf)
        for distance, item in enumerate(self._pasts[user]):
            weight = FADE**distance / (self._totals[item] + 0.5)
            for other, count in self._pairs[item].items():
                scores[other] = max(scores[other], 0.0) + weight * count
        return Scores(np.arange(self._n), scores)

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Count the pairs with the user's recent items."""
        self._n = max(self._n, item + 1)
        past = self._pasts[user]
        if past[:1] != [item]:
            for distance, other in enumerate(other for other in past if other != item):
                for one, two, weight in ((other, item, 1.0), (item, other, 0.5)):
                    self._pairs[one][two] += weight * FADE**distance
                    self._totals[one] += weight * FADE**distance
        self.observe(user, item, event)

    def observe(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Make the item the newest of the user's last ten."""
        past = self._pasts[user]
        if item in past:
            past.remove(item)
        past.insert(0, item)
        del past[WINDOW:]


class BiasedMatrix(NonPersonalized):
    """`river.reco.BiasedMF` on the taken item, and on one random item as a negative."""

    def __init__(self, seed: int = 7) -> None:
        from river import reco  # noqa: PLC0415  a second to load

        self._model: Any = reco.BiasedMF(n_factors=10, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._n = 0

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of all items; takes milliseconds, since River predicts one at a time."""
        scores = [self._model.predict_one(user, item) for item in range(self._n)]
        return Scores(np.arange(self._n), np.array(scores, np.float64))

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """One step for the item, one against a random one."""
        self._n = max(self._n, item + 1)
        self._model.learn_one(user, item, y=1.0)
        self._model.learn_one(user, int(self._rng.integers(self._n)), y=0.0)


BASELINES: dict[str, Callable[[], Model]] = {
    "popularity": Popularity,
    "popularity-day": lambda: Popularity(DAY_S),
    "popularity-week": lambda: Popularity(7 * DAY_S),
    "most-recent": MostRecent,
    "co-visitation": CoVisitationBaseline,
    "own-frequency": OwnFrequency,
    "tifu-knn": TifuKnn,
    "session-neighbours": Vsknn,
    "vmis-knn": VmisKnn,
    "stan": Stan,
    "biased-mf": BiasedMatrix,
    "item-neighbours": ItemNeighbours,
    "als": lambda: MatrixFactors("als"),
    "bpr": lambda: MatrixFactors("bpr"),
    "ease": Ease,
}
BATCH = frozenset({"item-neighbours", "als", "bpr", "ease"})
"""Baselines that are trained now and then."""

OF_BASKETS = frozenset({"own-frequency", "tifu-knn"})
"""Baselines that next baskets are compared with, unless others are named."""

SLOW = BATCH | {"session-neighbours", "vmis-knn", "stan", "biased-mf"}
"""Baselines that take milliseconds a query, or need an optional extra: only on request."""
