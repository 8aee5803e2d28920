"""Hyperparameters of recipes: Amazon's names, defaults and ranges, and which take effect here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import InvalidInput
from models.personalize.recipes import Recipe

TRUTHS = ("true", "false")


class Hyperparameter(NamedTuple):
    """One hyperparameter of a recipe, as Amazon documents it.

    Attributes
    ----------
    range
        Least and greatest value, or the allowed texts.
    is_featurization
        It belongs to featureTransformationParameters, not to algorithmHyperParameters.
    is_tunable
        performHPO may choose it.
    only_default
        Why only the default, and `also`, are taken; empty where every value has its effect.
    """

    name: str
    default: str
    range: tuple[float, float] | tuple[str, ...]
    is_whole: bool = False
    is_featurization: bool = False
    is_tunable: bool = False
    only_default: str = ""
    also: str = ""

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The allowed texts; None for a number."""
        return tuple(one for one in self.range if isinstance(one, str)) or None

    def value(self, text: str, where: str) -> str:
        """The value in a text, as `default` is written.

        Raises
        ------
        InvalidInput
            It is out of the range, or takes no effect here.
        """
        if self.texts is not None:
            found = text.lower() if self.texts == TRUTHS else text
            if found not in self.texts:
                raise InvalidInput(f"{where} must be one of {', '.join(self.texts)}, not {text!r}")
        else:
            found = _number_text(text)
            least, most = (float(bound) for bound in self.range)
            is_whole = not self.is_whole or float(found or "nan").is_integer()
            if not found or not is_whole or not least <= float(found) <= most:
                kind = "a whole number" if self.is_whole else "a number"
                raise InvalidInput(
                    f"{where} must be {kind} from {least:g} to {most:g}, not {text[:60]!r}"
                )
        taken = [one for one in (self.default, self.also) if one]
        if self.only_default and found not in taken:
            raise InvalidInput(
                f"{where}: only {' and '.join(taken)} is supported: {self.only_default}"
            )
        return found


def _number_text(text: str) -> str:
    """A finite number as Python writes it; empty for another text."""
    try:
        number = float(text)
    except ValueError:
        return ""
    return f"{number:g}" if math.isfinite(number) else ""


NO_LAYER = "there is no layer of that size in the model here"
NO_COUNTS = "what items have in common is not kept as counts here"
NO_COLD_START = "every item is known from its first event or record on here"
NO_PERIOD = "propensities are of each showing of an action here, whenever it is"
TWO_TRENDS = "trends are the last hour against the last day, or the last day against the last week"


def _layer(name: str, default: int, most: int, least: int = 32) -> Hyperparameter:
    return Hyperparameter(
        name, str(default), (least, most), is_whole=True, is_tunable=True, only_default=NO_LAYER
    )


def _percentile(name: str, default: str) -> Hyperparameter:
    return Hyperparameter(name, default, (0.0, 1.0), is_featurization=True)


_BPTT = Hyperparameter("bptt", "32", (2, 32), is_whole=True, is_tunable=True)
_RECENCY = Hyperparameter("recency_mask", "true", TRUTHS, is_tunable=True)
_HISTORY = (
    _percentile("min_user_history_length_percentile", "0"),
    _percentile("max_user_history_length_percentile", "0.99"),
)
_BIAS = (Hyperparameter("apply_recency_bias", "true", TRUTHS),)
_SEQUENCE = (_layer("hidden_dimension", 149, 256), _BPTT, _RECENCY, *_HISTORY)
_HRNN = (_layer("hidden_dimension", 43, 256), _BPTT, _RECENCY, *_HISTORY)

HYPERPARAMETERS: Mapping[str, Sequence[Hyperparameter]] = {
    "aws-user-personalization-v2": _BIAS,
    "aws-personalized-ranking-v2": _BIAS,
    "aws-user-personalization": _SEQUENCE,
    "aws-personalized-ranking": _SEQUENCE,
    "aws-hrnn": _HRNN,
    "aws-hrnn-metadata": _HRNN,
    "aws-hrnn-coldstart": (
        *_HRNN,
        *(
            Hyperparameter(
                name, default, bounds, is_featurization=True, only_default=NO_COLD_START
            )
            for name, default, bounds in (
                ("cold_start_max_interactions", "15", (1.0, 1e6)),
                ("cold_start_max_duration", "5", (0.0, 1e6)),
                ("cold_start_relative_from", "currentTime", ("latestItem", "currentTime")),
            )
        ),
    ),
    "aws-similar-items": (
        _layer("item_id_hidden_dimension", 100, 200, 30),
        _layer("item_metadata_hidden_dimension", 100, 200, 30),
    ),
    "aws-sims": (
        Hyperparameter("popularity_discount_factor", "0.5", (0.0, 1.0), is_tunable=True),
        Hyperparameter(
            "min_cointeraction_count", "3", (0, 10),
            is_whole=True, is_tunable=True, only_default=NO_COUNTS,
        ),
        _percentile("min_user_history_length_percentile", "0.005"),
        _percentile("max_user_history_length_percentile", "0.995"),
        _percentile("min_item_interaction_count_percentile", "0.01"),
        _percentile("max_item_interaction_count_percentile", "0.9"),
    ),
    "aws-trending-now": (
        Hyperparameter(
            "trend_discovery_frequency", "3 hours", ("30 minutes", "1 hour", "3 hours", "1 day"),
            is_featurization=True, only_default=TWO_TRENDS, also="1 day",
        ),
    ),
    "aws-next-best-action": (
        Hyperparameter(
            "action_optimization_period", "14", (7, 28),
            is_whole=True, is_featurization=True, only_default=NO_PERIOD,
        ),
    ),
    "aws-item-affinity": (_layer("hidden_dimension", 149, 256),),
    "aws-item-attribute-affinity": (_layer("hidden_dimension", 149, 256),),
}  # fmt: skip
"""Hyperparameters by recipe; other recipes have none."""

_MEMBERS = {False: "algorithmHyperParameters", True: "featureTransformationParameters"}


def defaults_of(recipe: Recipe, *, featurization: bool) -> dict[str, str]:
    """Default values of a recipe's algorithm, or of its feature transformation."""
    return {
        one.name: one.default
        for one in HYPERPARAMETERS.get(recipe.name, ())
        if one.is_featurization is featurization
    }


def hyperparameters(recipe: Recipe, config: Mapping[str, Any]) -> dict[str, str]:
    """The hyperparameters in a solutionConfig, checked; those left out have their defaults.

    Raises
    ------
    InvalidInput
        The recipe has none of the name, or a value is out of range or takes no effect here.
    """
    found: dict[str, str] = {}
    for is_featurization, member in _MEMBERS.items():
        known = {
            one.name: one
            for one in HYPERPARAMETERS.get(recipe.name, ())
            if one.is_featurization is is_featurization
        }
        found |= {one.name: one.default for one in known.values()}
        for name, text in config.get(member, {}).items():
            if name not in known:
                listed = ", ".join(known) or "none"
                raise InvalidInput(f"{member}: {recipe.name} has no {name!r}; it has {listed}")
            found[name] = known[name].value(text, f"{member}.{name}")
    least_most = [
        (name, name.replace("min_", "max_", 1)) for name in found if name.startswith("min_")
    ]
    for least, most in least_most:
        if most in found and float(found[least]) >= float(found[most]):
            raise InvalidInput(f"{least} must be less than {most}")
    return found


def ranges_of(recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """The ranges of a recipe's hyperparameters, in the shape `DefaultHyperParameterRanges`."""
    found: dict[str, list[dict[str, Any]]] = {
        "integerHyperParameterRanges": [],
        "continuousHyperParameterRanges": [],
        "categoricalHyperParameterRanges": [],
    }
    for one in HYPERPARAMETERS.get(recipe.name, ()):
        if one.is_featurization:
            continue
        bounds: dict[str, Any]
        if one.texts is not None:
            kind, bounds = "categorical", {"values": [*one.texts]}
        else:
            kind = "integer" if one.is_whole else "continuous"
            number = int if one.is_whole else float
            least, most = map(number, one.range)
            bounds = {"minValue": least, "maxValue": most}
        found[f"{kind}HyperParameterRanges"].append(
            {"name": one.name, **bounds, "isTunable": one.is_tunable}
        )
    return found
