"""Options of answers out of the configuration of a solution, campaign, recommender or job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.metadata_records import normalized
from models.personalize.recipes import Recipe
from models.personalize.training.hyperparameters import HYPERPARAMETERS
from models.serving.answer_options import AnswerOptions, ColumnChoice
from models.state import layout

EXPLORED_HALF = 0.5
"""Share of an answer that explores with an explorationWeight of 1: new items stand in its second
half."""

DEFAULT_AGE_DAYS = 30.0

SENSITIVITY: Mapping[str, float] = {"OFF": 0.0, "LOW": 0.15, "MEDIUM": 0.35, "HIGH": 0.6}
"""Influence of an objective's column on the order; the rest is the recommender's."""

UNDISCOUNTED = 0.5
"""popularity_discount_factor at which similar items are as this recommender finds them."""


def answer_options(
    recipe: Recipe, solution: Mapping[str, Any], config: Mapping[str, Any]
) -> AnswerOptions:
    """Options of the answers of a deployed version, or of a recommender.

    Parameters
    ----------
    solution
        The version's members: `eventType`, `solutionConfig`, and `tunedHPOParams`, which go before
        the hyperparameters that were configured. A recommender's own has none of them.
    config
        `campaignConfig`, `recommenderConfig` or `batchInferenceJobConfig`.
    """
    trained: Mapping[str, Any] = {**solution.get("solutionConfig", {})}
    tuned = solution.get("tunedHPOParams", {}).get("algorithmHyperParameters", {})
    values = {**trained.get("algorithmHyperParameters", {}), **tuned}
    found: dict[str, Any] = {}
    exploration = config.get("itemExplorationConfig", {})
    if "explorationWeight" in exploration:
        found["exploration_share"] = EXPLORED_HALF * float(exploration["explorationWeight"])
    if exploration:
        days = float(exploration.get("explorationItemAgeCutOff", DEFAULT_AGE_DAYS))
        found["max_explored_age_s"] = days * layout.DAY_S
    influence = config.get("rankingInfluence", {})
    found["popularity"] = float(influence.get("POPULARITY", 0.0))
    found["freshness"] = float(influence.get("FRESHNESS", 0.0))
    objective = trained.get("optimizationObjective", {})
    if "itemAttribute" in objective:
        found["objective_column"] = objective["itemAttribute"]
        found["objective"] = SENSITIVITY[objective.get("objectiveSensitivity", "OFF")]
    found["event_weights"] = event_weights(solution)
    known = {one.name: one.default for one in HYPERPARAMETERS.get(recipe.name, ())}
    if "bptt" in values and values["bptt"] != known.get("bptt"):
        found["max_history"] = int(float(values["bptt"]))
    for name in ("recency_mask", "apply_recency_bias"):
        if values.get(name, "true").lower() == "false":
            found["follows_trends"] = False
    if "popularity_discount_factor" in values:
        discount = float(values["popularity_discount_factor"]) - UNDISCOUNTED
        # Below, popularity takes all in the end; above, popular items only go down.
        found["popularity"] = -discount if discount > 0 else -2.0 * discount
    if values_of_trend(trained) == "1 day":
        found["follows_days"] = True
    found["item_columns"] = columns_of("ITEMS", solution, config)
    return AnswerOptions(**found)


def values_of_trend(trained: Mapping[str, Any]) -> str:
    """Interval at which a trending-now solution looks for trends; empty for the default."""
    parameters: Mapping[str, str] = trained.get("featureTransformationParameters", {})
    return parameters.get("trend_discovery_frequency", "")


def event_weights(solution: Mapping[str, Any]) -> dict[str, float] | None:
    """Weights of events by type in lower case, of an eventType or an eventsConfig; None: all count.

    >>> event_weights({"eventType": "Buy"})
    {'buy': 1.0}
    >>> events = [{"eventType": "view", "weight": 0.25}, {"eventType": "buy"}]
    >>> event_weights({"solutionConfig": {"eventsConfig": {"eventParametersList": events}}})
    {'view': 0.25, 'buy': 1.0}
    """
    config = solution.get("solutionConfig", {}).get("eventsConfig", {})
    listed = config.get("eventParametersList", [])
    if listed:
        return {one["eventType"].lower(): float(one.get("weight", 1.0)) for one in listed}
    event_type = solution.get("eventType", "")
    return {event_type.lower(): 1.0} if event_type else None


def columns_of(
    dataset_type: str, solution: Mapping[str, Any], config: Mapping[str, Any]
) -> ColumnChoice:
    """Columns of a dataset that a trainingDataConfig uses.

    >>> config = {"trainingDataConfig": {"excludedDatasetColumns": {"Items": ["GENRE"]}}}
    >>> columns_of("ITEMS", {}, config).uses("genre")
    False
    """
    included: frozenset[str] | None = None
    excluded = frozenset[str]()
    for one in (solution.get("solutionConfig", {}), config):
        for member, named in one.get("trainingDataConfig", {}).items():
            for name, columns in named.items():
                if name.upper() != dataset_type:
                    continue
                if member == "includedDatasetColumns":
                    included = frozenset(map(normalized, columns))
                else:
                    excluded |= frozenset(map(normalized, columns))
    return ColumnChoice(included, excluded)
