"""The main parameters of recommendations with their measured weights, in plain words.

What articles 27 and 38 of the EU's Digital Services Act (Regulation 2022/2065) ask a platform to
tell: which criteria matter most, how much each does, and how to get recommendations without
profiling. The weights are measured on the model that serves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import Floats
from models.ranking.champions import OBJECTIVES, Objective
from models.ranking.explanations import source_contributions
from models.ranking.features import AGAIN
from models.ranking.ranker import ListwiseRanker, Ranker
from models.serving.cached.shared_state import SharedState
from models.settings import Settings

N_SAMPLED = 512
"""Made-up candidates that weights are measured on: to two digits."""

WORDS: Final[Mapping[str, str]] = {
    "event": "What is looked at or bought together with the items that you looked at or bought; "
    "the newest of them count most.",
    "history": "Whether you have looked at the item or bought it, how often and how long ago.",
    "alike": "What people chose whose history is similar to yours.",
    "text": "How much the description of a new item has in common with those of the items that you "
    "looked at or bought.",
    "popular": "How often everybody looks at the item or buys it.",
    "trending": "Whether interest in the item grows.",
    "recent": "How long ago anybody chose the item.",
    "new": "How long the item has been known.",
}
"""Parameters by source, as reasons of an answer name them."""

_OBJECTIVES: Final[Mapping[Objective, str]] = {
    "interactions": "The items that you are most likely to choose next.",
    "purchases": "The items that you are most likely to buy next.",
}

_WITHOUT_PROFILING = (
    "With profiling=off a recommendation uses nothing that is known of you or of any other person: "
    "only the item that you are looking at, and lists that are the same for everybody."
)


class MainParameter(msgspec.Struct, frozen=True, rename="camel"):
    """A parameter of the order of recommendations."""

    name: Annotated[str, Meta(description="As reasons of an answer name it.")]
    weight: Annotated[
        float,
        Meta(description="Its share of what makes items differ, measured; all sum to 1."),
    ]
    meaning: str


class ObjectiveParameters(msgspec.Struct, frozen=True, rename="camel"):
    """Order of the recommendations of one objective, and the parameters behind it."""

    objective: str
    aim: str
    order: Annotated[str, Meta(description="What orders the items, in words.")]
    learned_examples: Annotated[int, Meta(description="Choices that the model has learned from.")]
    parameters: Annotated[list[MainParameter], Meta(description="The greatest weight first.")]


class Transparency(msgspec.Struct, frozen=True, rename="camel"):
    """Main parameters of recommendations in plain words, measured on the model that serves."""

    group: str
    at: Annotated[float, Meta(description="Unix seconds.")]
    objectives: list[ObjectiveParameters]
    rules: Annotated[list[str], Meta(description="What changes the order beside the model.")]
    without_profiling: Annotated[str, Meta(description="How to be recommended without profiling.")]


def transparency(
    settings: Settings, shared: SharedState, columns: Collection[str], *, now_s: float
) -> Transparency:
    """Main parameters of a group's recommendations, by its state and contextual columns.

    Some milliseconds.
    """
    return Transparency(
        settings.group,
        now_s,
        [_parameters(name, shared) for name in OBJECTIVES],
        _rules(settings, columns),
        _WITHOUT_PROFILING,
    )


def measured_weights(ranker: Ranker, learned: ListwiseRanker) -> dict[str, float]:
    """Share of each source in what makes candidates' scores differ, the greatest first.

    The mean of the absolute contributions (integrated gradients, `Ranker.contributions`) to
    candidates whose features are distributed as those of the examples that were learned: normally,
    with the running means and variances, and independently of each other. Of requests within a
    moment: at the beginning of one, own items count for more (`models.ranking.returns`).

    >>> from models.ranking.ranker import BLEND
    >>> measured_weights(BLEND, ListwiseRanker())["event"]
    1.0
    """
    matrix = _candidates(learned)
    sizes = {
        source: float(np.abs(contributions).mean())
        for source, contributions in source_contributions(matrix, ranker).items()
    }
    total = sum(sizes.values())
    shares = {source: round(size / total, 3) if total else 0.0 for source, size in sizes.items()}
    return dict(sorted(shares.items(), key=lambda one: (-one[1], one[0])))


def _candidates(learned: ListwiseRanker) -> Floats:
    chance = np.random.default_rng(1)
    drawn: Floats = chance.normal(
        learned.mean, np.sqrt(learned.variance), (N_SAMPLED, len(learned.mean))
    )
    # What own items gain where a request begins a moment is a share of all candidates together.
    drawn[:, AGAIN] = 0.0
    return drawn


def _parameters(objective: Objective, shared: SharedState) -> ObjectiveParameters:
    learned, ranker = shared.rankers[objective], shared.champion(objective)
    is_learned = shared.serving(objective) != "blend"
    order = (
        "A model that learns from what people chose among the items that could have been shown."
        if is_learned
        else "A fixed sum of how often items are looked at or bought together: the model that "
        "learns is not better than it yet."
    )
    weights = measured_weights(ranker, learned)
    return ObjectiveParameters(
        objective,
        _OBJECTIVES[objective],
        order,
        learned.n_examples,
        [MainParameter(name, weight, WORDS[name]) for name, weight in weights.items() if weight],
    )


def _rules(settings: Settings, columns: Collection[str]) -> list[str]:
    rules = [
        (
            "Items are candidates if they were looked at or bought together with yours, by people "
            "with similar histories or by yourself, or if they are among the popular, trending, "
            "recent and new ones."
        ),
        "Whoever is not known yet gets what is trending.",
    ]
    if settings.exploration_share:
        rules.append(
            f"On average {settings.exploration_share:.0%} of a longer list are new items, or items "
            "that we are unsure of, drawn at random, so that they get their chance."
        )
    if settings.popular_share < 1:
        rules.append(
            f"At most {settings.popular_share:.0%} of a list are of the week's most popular items."
        )
    if settings.category_share < 1:
        rules.append(f"At most {settings.category_share:.0%} of a list are of one category.")
    if columns:
        rules.append(
            "Items that are chosen more often under the circumstances of a request rank higher: "
            f"{', '.join(sorted(columns))}."
        )
    return rules
