"""Hyperparameter optimization: the values to measure, and the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.personalize.recipes import Recipe
from models.personalize.training.hyperparameters import (
    HYPERPARAMETERS,
    Hyperparameter,
    hyperparameters,
)

METRIC = "mean_reciprocal_rank_at_25"
DEFAULT_TRIALS = 4
"""Values measured, unless maxNumberOfTrainingJobs says how many."""

MAX_TRIALS = 40
STEPS = 4
"""Values of a numeric range that are tried, spread over it."""

_RANGES = {
    "integerHyperParameterRanges": True,
    "continuousHyperParameterRanges": True,
    "categoricalHyperParameterRanges": False,
}


def tuned_parameters(recipe: Recipe) -> list[Hyperparameter]:
    """Hyperparameters of a recipe that can be optimized here."""
    return [
        one
        for one in HYPERPARAMETERS.get(recipe.name, ())
        if one.is_tunable and not one.only_default
    ]


def trials(recipe: Recipe, config: Mapping[str, Any]) -> list[dict[str, str]]:
    """Sets of hyperparameters to measure, the configured one first; checked.

    Parameters
    ----------
    config
        A solutionConfig: its `hpoConfig` has ranges, and how many sets are measured.

    Raises
    ------
    InvalidInput
        The recipe has nothing to optimize, or a range is not within Amazon's.
    """
    known = {one.name: one for one in tuned_parameters(recipe)}
    if not known:
        raise InvalidInput(f"performHPO: {recipe.name} has no hyperparameter to optimize")
    values = {name: _spread(one, *map(float, one.range)) if one.texts is None else [*one.texts]
              for name, one in known.items()}  # fmt: skip
    hpo = config.get("hpoConfig", {})
    for kind, is_numeric in _RANGES.items():
        for given in hpo.get("algorithmHyperParameterRanges", {}).get(kind, []):
            name, where = given.get("name", ""), f"{kind}.{given.get('name', '')}"
            if name not in known or (known[name].texts is None) is not is_numeric:
                raise InvalidInput(f"{where}: {recipe.name} can optimize {', '.join(known)}")
            if is_numeric:
                one = known[name]
                least, most = (given.get(end, 0.0) for end in ("minValue", "maxValue"))
                low, high = (float(one.value(f"{end:g}", where)) for end in (least, most))
                if low > high:
                    raise InvalidInput(f"{where}: minValue is greater than maxValue")
                values[name] = _spread(one, low, high)
            else:
                texts = [known[name].value(text, where) for text in given.get("values", [])]
                if not texts:
                    raise InvalidInput(f"{where}: there are no values")
                values[name] = texts
    most = int(
        float(hpo.get("hpoResourceConfig", {}).get("maxNumberOfTrainingJobs", DEFAULT_TRIALS))
    )
    configured = hyperparameters(recipe, config)
    sets = [{name: configured[name] for name in known}]
    for chosen in itertools.product(*values.values()):
        one_set = dict(zip(values, chosen, strict=True))
        if one_set not in sets:
            sets.append(one_set)
    within = [one for one in sets if all(one[name] in values[name] for name in known)] or sets
    # Spread over all of them, not the first few, which differ in one value only.
    step = max(1.0, len(within) / min(most, MAX_TRIALS))
    return [within[int(step * n)] for n in range(min(most, MAX_TRIALS, len(within)))]


def objective_of(config: Mapping[str, Any]) -> tuple[str, float]:
    """The metric that optimization follows, and 1 to maximize it, or -1.

    Raises
    ------
    InvalidInput
        There is no such type.
    """
    given = config.get("hpoConfig", {}).get("hpoObjective", {})
    kind = given.get("type", "Maximize")
    if kind.lower() not in {"maximize", "minimize"}:
        raise InvalidInput(f"hpoObjective.type must be Maximize or Minimize, not {kind!r}")
    return given.get("metricName", METRIC), 1.0 if kind.lower() == "maximize" else -1.0


def _spread(one: Hyperparameter, least: float, most: float) -> list[str]:
    """Values of a range, the least and the greatest among them, as texts."""
    points = [least + (most - least) * n / (STEPS - 1) for n in range(STEPS)]
    texts = [f"{round(point) if one.is_whole else point:g}" for point in points]
    return [*dict.fromkeys(texts)]
