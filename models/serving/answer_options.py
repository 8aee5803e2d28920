"""Options of an answer: exploration, influences on the order, and which events count."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from models.metadata_records import normalized
from models.ranking.champions import RankerChoice
from models.state import layout
from models.state.histories import History

MAX_EXPLORED_AGE_S = 30 * layout.DAY_S
"""Age up to which an item is explored, unless an option says otherwise."""

LEAST_WEIGHT = 1e-3
"""An event of a smaller weight does not count at all."""


class ColumnChoice(msgspec.Struct, frozen=True):
    """Columns that count, as `normalized` names them: those included, or all that are not excluded.

    Attributes
    ----------
    included
        None for all.
    """

    included: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()

    def uses(self, column: str) -> bool:
        """True for a column that counts.

        >>> ColumnChoice(excluded=frozenset({"price"})).uses("PRICE")
        False
        """
        name = normalized(column)
        return name not in self.excluded and (self.included is None or name in self.included)


ALL_COLUMNS = ColumnChoice()


class AnswerOptions(msgspec.Struct, frozen=True):
    """Options of an answer; the defaults change nothing.

    Attributes
    ----------
    exploration_share
        Share of the answer for new items alone; None for `RECOMMENDER_EXPLORATION_SHARE` of new
        items and of those that the ranker is unsure of.
    max_explored_age_s
        Age, at the time of the newest event, up to which an item is explored.
    popularity, freshness
        Influence of an item's events, and of how new it is, on the order, from -1 to 1; 0: none
        beside what the ranker gives them. With 1 nothing else counts.
    objective_column, objective
        Numeric property of items, and its influence, from 0 to 1.
    event_weights
        Weight, from 0 to 1, of the user's events by type in lower case; others do not count. None:
        all events count alike.
    max_history
        Newest events of the user that count; None for all.
    follows_trends
        False: popularity is that of all time, and what is popular now counts no more.
    follows_days
        True: trends are the last day against the last week, not the last hour against the day.
    item_columns
        Properties of items whose categories give candidates; texts count only where all do, since
        terms do not say which property they are of.
    keeps_variants
        True for a list that is to be filtered: all variants of a product are in it, since the best
        one may be taken out; `models.serving.merchandising.variants` leaves one of them then.
    ranker
        What orders the candidates; None for that which serves.
    """

    exploration_share: float | None = None
    max_explored_age_s: float = MAX_EXPLORED_AGE_S
    popularity: float = 0.0
    freshness: float = 0.0
    objective_column: str = ""
    objective: float = 0.0
    event_weights: Mapping[str, float] | None = None
    max_history: int | None = None
    follows_trends: bool = True
    follows_days: bool = False
    item_columns: ColumnChoice = ALL_COLUMNS
    keeps_variants: bool = False
    ranker: RankerChoice | None = None

    @property
    def uses_texts(self) -> bool:
        """True if similar texts count."""
        return self.item_columns == ALL_COLUMNS

    @property
    def is_influenced(self) -> bool:
        """True if something ranks beside the ranker, so that all candidates are needed."""
        return bool(self.popularity or self.freshness or self.objective)

    @property
    def weighs_events(self) -> bool:
        """True if not all events of the user count alike."""
        return self.event_weights is not None or self.max_history is not None


NO_OPTIONS = AnswerOptions()


def weighted_history(history: History, types: Mapping[int, str], options: AnswerOptions) -> History:
    """The events of a history that count, as the options weigh them; O(events).

    An event of weight w stands in the history as if it were 1 / w as many events ago: what follows
    from the order of events gives newer ones more. Events of types without a weight are left out,
    and negative ones, which count apart.

    Parameters
    ----------
    types
        Name of each type code.
    """
    kept = np.arange(len(history.items))
    if options.event_weights is not None:
        by_code = np.zeros(256)
        for code, name in types.items():
            by_code[code] = options.event_weights.get(name.lower(), 0.0)
        weights = by_code[history.types]
        kept = np.flatnonzero((weights > LEAST_WEIGHT) & (history.items >= 0))
        back = np.arange(len(kept), 0, -1) / weights[kept]
        kept = kept[np.argsort(-back, kind="stable")]
    if options.max_history is not None:
        kept = kept[history.items[kept] >= 0][-options.max_history :]
    return msgspec.structs.replace(
        history, items=history.items[kept], times=history.times[kept], types=history.types[kept]
    )
