"""Requests for the answer of a recipe, with what the filter needs to know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.filters.filter import Filter, check_value_names
from models.personalize.recipes import Recipe
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.enough_items import ItemSearch
from models.serving.item_filters import ItemFilter


@dataclass(frozen=True)
class RecipeRequest:
    """A request for the answer of a recipe.

    Attributes
    ----------
    length
        Items wanted, at most; a ranking holds all that are given and allowed.
    item_ids
        Items to rank, for a recipe of type PERSONALIZED_RANKING.
    context
        Values of contextual columns; they count in answers for one user.
    filter
        Decides which items the answer may hold; None allows all.
    filter_values
        Values of the filter's placeholders.
    options
        Of the campaign or job that asks.
    trained
        Weights of the items that a version was trained on, where not all events count; answers of
        recipes that are not for one user hold no others, and popular ones follow the weights.
    """

    recipe: Recipe
    user_id: str | None
    item_id: str | None
    length: int
    item_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    filter: Filter | None = None
    filter_values: Mapping[str, str] = field(default_factory=dict)
    options: AnswerOptions = NO_OPTIONS
    trained: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Refuse values for a placeholder that the filter does not have."""
        check_value_names(self.filter_values, () if self.filter is None else (self.filter,))

    @property
    def item_filter(self) -> ItemFilter | None:
        """The filter with what it needs of the request; None without one."""
        if self.filter is None:
            return None
        return ItemFilter(self.filter, self.filter_values, self.user_id, None, self.item_id)

    @property
    def search(self) -> ItemSearch:
        """The number of items that it needs, and the filter that they must pass."""
        asked = self.item_filter
        return ItemSearch(self.length, () if asked is None else (asked,))

    @property
    def reads_history(self) -> bool:
        """True if the filter looks at the user's events, which the candidates may come from too."""
        found = self.filter
        return found is not None and self.user_id is not None and "interactions" in found.reads
